import { CustomerCreated } from '@oncebox/contracts';
import { defineConsumer, on } from '@oncebox/inbox';

/** English for every language that is not here. */
const GREETINGS: Readonly<Record<string, { readonly subject: string; readonly to: (name: string) => string }>> = {
  de: { subject: 'Willkommen', to: (name) => `Willkommen, ${name}!` },
};
const ENGLISH = { subject: 'Welcome', to: (name: string) => `Welcome, ${name}!` };

/** Welcomes each new customer once. A row of `emails` stands for the e-mail. */
export const welcomeEmail = defineConsumer({
  name: 'welcome-email',
  handlers: [
    on(CustomerCreated, {
      async handle(tx, { id, payload: { customerId, name, email, language } }) {
        const { subject, to } = GREETINGS[language] ?? ENGLISH;
        await tx.execute(
          'INSERT INTO emails (message_id, customer_id, recipient, subject, body) VALUES (?, ?, ?, ?, ?)',
          [id, customerId, email, subject, to(name)],
        );
      },
    }),
  ],
});
