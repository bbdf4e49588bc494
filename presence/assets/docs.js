// Renders /openapi.json for people: parameters, answers and a form for each path.
// Loads only that document and the API itself. All text is inserted as text nodes, never as HTML.
"use strict";

const el = (name, props = {}, ...children) => {
  const node = Object.assign(document.createElement(name), props);
  node.append(...children.flat().filter((child) => child != null));
  return node;
};

// The Markdown subset of the descriptions: paragraphs and `code`.
const inline = (text) => text.split(/`([^`]+)`/).map((part, i) => (i % 2 ? el("code", {}, part) : part));
const prose = (text) => (text ?? "").split("\n\n").filter(Boolean).map((part) => el("p", {}, inline(part)));
const pretty = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));
const slug = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");

let api;
const resolve = (schema) => {
  if (schema?.$ref) return resolve(schema.$ref.split("/").slice(1).reduce((node, key) => node[key], api));
  if (!schema?.allOf) return schema ?? {};
  const parts = schema.allOf.map(resolve);
  return { ...schema, type: "object", properties: Object.assign({}, ...parts.map((part) => part.properties)), required: parts.flatMap((part) => part.required ?? []) };
};
const variants = (schema) => (schema.oneOf ?? schema.anyOf ?? [schema]);

const typeOf = (schema) => {
  const here = resolve(schema);
  if (here.oneOf || here.anyOf) return variants(here).map(typeOf).join(" or ");
  if (here.enum) return here.enum.join(" | ");
  const types = [here.type ?? "any"].flat();
  return types.map((type) => (type === "array" ? `${typeOf(here.items)}[]` : type)).join(" or ");
};

// One row for each property; properties of nested objects are indented below it.
const rows = (schema, depth = 0) => {
  const here = resolve(schema);
  if (here.oneOf || here.anyOf) return variants(here).flatMap((one) => rows(one, depth));
  if ([here.type].flat().includes("array")) return rows(here.items, depth);
  return Object.entries(here.properties ?? {}).flatMap(([name, property]) => {
    const cell = el("td", {}, el("code", { className: here.required?.includes(name) ? "required" : "" }, name));
    cell.style.paddingLeft = `${depth * 18}px`;
    const about = property.description ?? resolve(property).description ?? "";
    return [el("tr", {}, cell, el("td", {}, typeOf(property)), el("td", {}, inline(about))), ...rows(property, depth + 1)];
  });
};
const table = (list) => (list.length ? [el("table", {}, el("tbody", {}, list))] : []);

const bounds = ({ minimum, maximum, default: standard }) => [
  minimum != null && maximum != null ? `${minimum} to ${maximum}` : null,
  standard != null ? `default ${standard}` : null,
].filter(Boolean).join(", ");

const parameters = (list) => table(list.map((parameter) => {
  const limits = bounds(parameter.schema ?? {});
  return el("tr", {},
    el("td", {}, el("code", { className: parameter.required ? "required" : "" }, parameter.name)),
    el("td", {}, `${parameter.in}, ${typeOf(parameter.schema).replace(" or null", "")}`),
    el("td", {}, inline(parameter.description ?? ""), limits ? ` (${limits})` : ""));
}));

const answer = ([status, response]) => {
  const [mediaType, content] = Object.entries(response.content ?? {})[0] ?? [];
  const examples = content?.example != null ? [content.example] : Object.values(content?.examples ?? {}).map((one) => one.value);
  const bad = status >= "400";
  return el("details", {},
    el("summary", {}, el("b", { className: bad ? "bad" : "" }, status), inline(response.description)),
    el("div", {},
      el("h4", {}, mediaType ?? ""),
      examples.map((example) => el("pre", {}, pretty(example))),
      bad ? [] : table(rows(content?.schema ?? {}))));
};

// A form that sends the request and shows the answer. Streams appear piece by piece.
const trial = (path, method, operation) => {
  const fields = (operation.parameters ?? []).map((parameter) => {
    const value = parameter.required ? String(parameter.example ?? "") : "";
    return { parameter, input: el("input", { value, placeholder: parameter.schema?.default ?? "", spellcheck: false }) };
  });
  const example = operation.requestBody?.content?.["application/json"]?.example;
  const body = operation.requestBody ? el("textarea", { value: pretty(example ?? {}), rows: pretty(example ?? {}).split("\n").length, spellcheck: false }) : null;
  const address = el("code");
  const output = el("output");
  const button = el("button", {}, "Try it");
  let running = null;

  const request = () => {
    const query = new URLSearchParams();
    const headers = {};
    let target = path;
    for (const { parameter, input } of fields) {
      if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
      else if (input.value && parameter.in === "query") query.set(parameter.name, input.value);
      else if (input.value) headers[parameter.name] = input.value;
    }
    if (body) headers["Content-Type"] = "application/json";
    return { target: target + (query.size ? `?${query}` : ""), options: { method: method.toUpperCase(), headers, body: body?.value } };
  };

  const send = async (event) => {
    event.preventDefault();
    if (running) return running.abort();
    running = new AbortController();
    button.textContent = "Stop";
    const { target, options } = request();
    const shown = el("pre");
    try {
      const response = await fetch(target, { ...options, signal: running.signal });
      const status = el("b", { className: response.ok ? "" : "bad" }, `${response.status} ${response.statusText}`);
      output.replaceChildren(el("div", { className: "status" }, status, ` ${response.headers.get("content-type") ?? ""}`), shown);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let part = await reader.read(); !part.done; part = await reader.read()) shown.textContent += part.value;
      if (/json/.test(response.headers.get("content-type"))) shown.textContent = pretty(JSON.parse(shown.textContent));
    } catch (error) {
      if (error.name !== "AbortError") output.replaceChildren(el("b", { className: "bad" }, String(error)));
    } finally {
      running = null;
      button.textContent = "Try it";
    }
  };

  const label = ({ parameter, input }) => el("label", {}, parameter.name, input);
  const form = el("form", { onsubmit: send },
    el("div", { className: "fields" }, fields.map(label), body ? el("label", { className: "wide" }, "body", body) : null),
    el("div", { className: "send" }, button, address), output);
  const show = () => { address.textContent = `${method.toUpperCase()} ${request().target}`; };
  form.addEventListener("input", show);
  show();
  return form;
};

const card = ({ path, method, operation }) => el("article", { id: slug(operation.summary) },
  el("header", {},
    el("h3", {}, operation.summary),
    el("span", { className: `method ${method}` }, method.toUpperCase()), el("code", {}, path)),
  prose(operation.description),
  operation.parameters?.length ? [el("h4", {}, "Parameters"), ...parameters(operation.parameters)] : [],
  operation.requestBody ? [el("h4", {}, "Body"), ...table(rows(operation.requestBody.content["application/json"].schema))] : [],
  el("h4", {}, "Answers"),
  Object.entries(operation.responses).map(answer),
  trial(path, method, operation));

// The codes of the Problem schema, from its examples.
const problems = () => api.components.schemas.Problem.examples.map(({ code, status, title }) =>
  el("tr", { id: code }, el("td", {}, el("code", {}, code)), el("td", {}, String(status)), el("td", {}, title)));

const draw = () => {
  const operations = Object.entries(api.paths).flatMap(([path, item]) =>
    Object.entries(item).filter(([, operation]) => operation.responses).map(([method, operation]) => ({ path, method, operation })));
  const main = document.getElementById("page");
  const nav = document.getElementById("contents");
  main.replaceChildren(el("h1", {}, `${api.info.title} `, el("small", {}, api.info.version)), ...prose(api.info.description),
    el("p", {}, "For programs: ", el("a", { href: "/openapi.json" }, "/openapi.json"), "."));
  for (const tag of api.tags ?? []) {
    const own = operations.filter(({ operation }) => operation.tags?.includes(tag.name));
    main.append(el("h2", {}, tag.name[0].toUpperCase() + tag.name.slice(1), el("small", {}, tag.description ?? "")), ...own.map(card));
    nav.append(el("h2", {}, tag.name), ...own.map(({ operation }) => el("a", { href: `#${slug(operation.summary)}` }, operation.summary)));
  }
  main.append(el("h2", {}, "Problems", el("small", {}, "Meaning of the error codes")), ...table(problems()));
  nav.append(el("h2", {}, "problems"), el("a", { href: "#bad_request" }, "Codes"));
  if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
};

// Wide screens show the whole navigation; on narrow ones a link folds it again.
const narrow = matchMedia("(max-width: 820px)");
const menu = document.getElementById("menu");
const fold = () => { menu.open = !narrow.matches; };
narrow.addEventListener("change", fold);
menu.addEventListener("click", (event) => { if (event.target.closest("a")) fold(); });
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !narrow.matches || !menu.open) return;
  fold();
  menu.querySelector("summary").focus();
});
fold();

fetch("/openapi.json")
  .then((response) => response.json())
  .then((document_) => { api = document_; draw(); })
  .catch((error) => document.getElementById("page").replaceChildren(el("p", {}, `The description of the API could not be loaded: ${error}`)));
