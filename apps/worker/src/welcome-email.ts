import { CustomerCreated } from '@oncebox/contracts';
import { defineConsumer, onBatch } from '@oncebox/inbox';
import { asBytes } from '@oncebox/mysql';

/** English for every language that is not here. */
const GREETINGS: Readonly<Record<string, { readonly subject: string; readonly to: (name: string) => string }>> = {
  de: { subject: 'Willkommen', to: (name) => `Willkommen, ${name}!` },
};
const ENGLISH = { subject: 'Welcome', to: (name: string) => `Welcome, ${name}!` };

/** Welcomes each new customer once. A row of `emails` stands for the e-mail; one statement writes those of a whole batch. */
export const welcomeEmail = defineConsumer({
  name: 'welcome-email',
  handlers: [
    onBatch(CustomerCreated, {
      async handle(tx, messages) {
        // A query: as a prepared statement, each number of rows would be another.
        await tx.query('INSERT INTO emails (message_id, customer_id, recipient, subject, body) VALUES ?', [
          messages.map(({ id, payload: { customerId, name, email, language } }) => {
            const { subject, to } = GREETINGS[language] ?? ENGLISH;
            return [id, customerId, email, subject, to(name)].map(asBytes);
          }),
        ]);
      },
    }),
  ],
});
