import { html } from "../vendor/lit-html/lit-html.js";

const icon = (path) => html`<svg class="icon" viewBox="0 0 20 20" aria-hidden="true"><path d=${path}></path></svg>`;

export const icons = {
  menu: icon("M3 6h14M3 10h14M3 14h14"),
  search: icon("M9 15A6 6 0 1 0 9 3a6 6 0 0 0 0 12zM13.5 13.5 17 17"),
  people: icon("M7.5 9.5a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM2 16.5c0-3 2.5-4.5 5.5-4.5s5.5 1.5 5.5 4.5M13.5 4a3 3 0 0 1 0 5.5M15.5 12.5c1.7.7 2.5 2 2.5 4"),
  plus: icon("M10 4v12M4 10h12"),
  close: icon("M5 5l10 10M15 5 5 15"),
  down: icon("M10 4v12M5 11l5 5 5-5"),
  send: icon("M10 16V4M5 9l5-5 5 5"),
  lock: icon("M5.5 9h9a1 1 0 0 1 1 1v6a1 1 0 0 1-1 1h-9a1 1 0 0 1-1-1v-6a1 1 0 0 1 1-1zM7 9V6.5a3 3 0 0 1 6 0V9"),
  link: icon("M8.5 11.5a3 3 0 0 0 4.2 0l3-3a3 3 0 0 0-4.2-4.2l-1 1M11.5 8.5a3 3 0 0 0-4.2 0l-3 3a3 3 0 0 0 4.2 4.2l1-1"),
  leave: icon("M8 4H5a1 1 0 0 0-1 1v10a1 1 0 0 0 1 1h3M12 6.5l3.5 3.5-3.5 3.5M15.5 10H8"),
  clock: icon("M10 17a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM10 6v4l2.5 2"),
  check: icon("M4 10.5l4 4 8-9"),
  checks: icon("M1.5 10.5l4 4 8-9M9.5 14.5l9-9"),
  alert: icon("M10 17a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM10 6.5v4M10 13.2v.1"),
  swap: icon("M4 7h11l-3-3M16 13H5l3 3"),
};
