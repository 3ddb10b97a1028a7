export const STYLE = `
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5a6475; --line: #dfe3ea; --paper: #ffffff; --tint: #f5f7fa;
  --get: #0b6bcb; --post: #18794e; --patch: #9a5b00; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #9aa4b5; --line: #2c3442; --paper: #12161d; --tint: #1a2029;
  --get: #6cb2f7; --post: #5cc596; --patch: #e3ab55; --bad: #f2857d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 56rem; margin: 0 auto; padding: 2rem 1.25rem 5rem; }
h1 { margin: 0 0 .5rem; font-size: 1.9rem; letter-spacing: -.02em; }
h2 { margin: 3rem 0 1rem; padding-top: 1rem; border-top: 1px solid var(--line); font-size: 1.3rem; }
h4 { margin: 1.6rem 0 .4rem; font-size: .8rem; text-transform: uppercase; letter-spacing: .06em; color: var(--soft); }
p { margin: .5rem 0; }
a { color: var(--get); }
nav ul { list-style: none; margin: 1.5rem 0 0; padding: 0; }
nav li { margin: .3rem 0; }
nav a { text-decoration: none; }
code, pre { font: .875rem/1.5 ui-monospace, "SFMono-Regular", "DejaVu Sans Mono", monospace; }
pre { margin: .4rem 0; padding: .8rem 1rem; overflow-x: auto; background: var(--tint); border: 1px solid var(--line); border-radius: 8px; }
section { margin: 2rem 0; padding: 1.1rem 1.3rem 1.4rem; border: 1px solid var(--line); border-radius: 12px; }
section > h3 { display: flex; flex-wrap: wrap; gap: .7rem; align-items: baseline; margin: 0; font-size: 1.05rem; }
.method { font: 700 .8rem ui-monospace, monospace; text-transform: uppercase; }
.get { color: var(--get); } .post { color: var(--post); } .patch { color: var(--patch); }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; }
th, td { padding: .45rem .9rem .45rem 0; text-align: left; vertical-align: top; border-top: 1px solid var(--line); }
th { font-size: .8rem; font-weight: 600; color: var(--soft); border-top: 0; }
td:first-child { white-space: nowrap; }
td code { overflow-wrap: anywhere; }
.soft { color: var(--soft); } .small { font-size: .875rem; }
.bad { color: var(--bad); }
details { border-top: 1px solid var(--line); padding: .45rem 0; }
summary { cursor: pointer; }
`;
