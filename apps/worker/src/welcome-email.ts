import { CustomerCreated } from '@oncebox/contracts';
import { defineConsumer, on } from '@oncebox/inbox';

/** Welcomes each new customer once. A row of `emails` stands for the e-mail. */
export const welcomeEmail = defineConsumer({
  name: 'welcome-email',
  handlers: [
    on(CustomerCreated, {
      async handle(tx, { id, payload: { customerId, name, email } }) {
        await tx.execute(
          'INSERT INTO emails (message_id, customer_id, recipient, subject, body) VALUES (?, ?, ?, ?, ?)',
          [id, customerId, email, 'Welcome', `Welcome, ${name}!`],
        );
      },
    }),
  ],
});
