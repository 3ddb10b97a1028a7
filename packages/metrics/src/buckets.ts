/** Upper bounds for what takes milliseconds as a rule. */
export const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
/** For what may also wait for an outage to end, or for its next attempt. */
export const LATENCIES = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600];
export const SIZES = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000];
