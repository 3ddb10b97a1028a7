/** Loaded with `--import` into a program under test: its clock goes wrong by ONCEBOX_CLOCK_SHIFT_MS, as on a host without NTP. */
const shiftMs = Number(process.env['ONCEBOX_CLOCK_SHIFT_MS'] ?? 0);
const RightDate = Date;

globalThis.Date = new Proxy(RightDate, {
  construct: (target, args, newTarget) =>
    Reflect.construct(target, args.length === 0 ? [RightDate.now() + shiftMs] : args, newTarget),
  get: (target, name, self) => (name === 'now' ? () => RightDate.now() + shiftMs : Reflect.get(target, name, self)),
});
