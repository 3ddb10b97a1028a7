/**
 * The payment provider, another company's system: no transaction of ours reaches it, and a call may have taken effect though its
 * answer never came. So each operation is asked for under a key, and asking again under the same key tells what became of it.
 */
export interface PaymentGateway {
  /** @throws when no answer came; the money may have been taken. */
  charge(request: ChargeRequest, signal: AbortSignal): Promise<'charged' | 'declined'>;
  /**
   * Gives back what was charged under `chargeKey`, once. That there was nothing is an answer for now and not kept under the key: a
   * charge may still come.
   *
   * @returns the amount, in minor units; 0 for nothing.
   * @throws when no answer came; the money may have been given back.
   */
  refund(request: RefundRequest, signal: AbortSignal): Promise<number>;
}

export interface ChargeRequest {
  readonly key: string;
  /** In minor units. */
  readonly amount: number;
  readonly token: string;
}

export interface RefundRequest {
  readonly key: string;
  readonly chargeKey: string;
}
