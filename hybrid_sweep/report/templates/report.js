"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tag = (name, text, kind) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    if (kind) element.className = kind;
    return element;
  };

  // Figures: every string "--name" in them is the page's colour of that name, light or dark.
  const themed = (value, style) => {
    if (typeof value === "string") return value.startsWith("--") ? style.getPropertyValue(value).trim() : value;
    if (Array.isArray(value)) return value.map((inner) => themed(inner, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, themed(inner, style)]));
  };

  // Plotly 7 puts "Share chart..." into the modebar, which uploads the chart: nothing leaves this page.
  const QUIET = { responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "" };
  const draw = (id, figure) => {
    if (!figure) return;
    const style = getComputedStyle(document.documentElement);
    const axis = { gridcolor: "--rule", zeroline: false, linecolor: "--rule", automargin: true };
    const layout = {
      paper_bgcolor: "--clear", plot_bgcolor: "--clear", hovermode: "closest", modebar: { bgcolor: "--clear", color: "--muted", activecolor: "--front" }, margin: { l: 60, r: 20, t: 16, b: 50 },
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: "--ink" },
      hoverlabel: { bgcolor: "--card", bordercolor: "--rule", font: { color: "--ink" }, align: "left" },
      legend: { orientation: "h", y: -0.16, x: 0 },
      ...figure.layout,
    };
    const axes = Object.keys(layout).filter((key) => /^[xy]axis/.test(key));
    axes.forEach((key) => { layout[key] = { ...axis, ...layout[key] }; });
    Plotly.react(id, themed(figure.data, style), themed(layout, style), QUIET);
  };
  const drawAll = () => { draw("front-plot", data.front); draw("settings-plot", data.settings); };
  drawAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);

  // The table: sorted by a click on a heading, empty cells always last.
  const { columns, rows, front, twins } = data.table;
  const CHUNK = 250;
  const at = Object.fromEntries(columns.map((column, index) => [column.name, index]));
  const table = document.getElementById("trials");
  const search = document.getElementById("search");
  const every = document.getElementById("every-column");
  const onlyFront = document.getElementById("only-front");
  const more = document.getElementById("more");
  const state = { by: null, rising: true, all: false };

  const cell = (row, index) => {
    const { name, text, digits } = columns[index];
    const value = rows[row][index];
    if (name === "state") {
      const box = tag("td", undefined, "text");
      box.append(tag("span", value, `pill ${value}`));
      return box;
    }
    if (name === "behaviour" && twins[row]) {
      const others = `same behaviour as ${twins[row]} other${twins[row] > 1 ? "s" : ""}`;
      return tag("td", `${value} · ${others}`, "text");
    }
    if (value === null || value === "") return tag("td", text ? "" : "–", text ? "text" : "unrun");
    return tag("td", text ? value : value.toFixed(digits), text ? `text ${name}` : "");
  };

  const order = (one, other) => {
    const a = rows[one][state.by], b = rows[other][state.by];
    const emptyA = a === null || a === "", emptyB = b === null || b === "";
    if (emptyA || emptyB) return emptyA - emptyB;
    const difference = typeof a === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
    return state.rising ? difference : -difference;
  };

  const fill = () => {
    const shown = columns.map((_, index) => index).filter((index) => every.checked || columns[index].first);
    const head = tag("tr");
    shown.forEach((index) => {
      const { name, text, meaning } = columns[index];
      const heading = tag("th", undefined, text ? "text" : "");
      const mark = state.by === index ? (state.rising ? " ▲" : " ▼") : "";
      const button = tag("button", name.replaceAll("_", " ") + mark);
      heading.title = meaning;
      heading.ariaSort = mark ? (state.rising ? "ascending" : "descending") : "none";
      button.addEventListener("click", () => {
        state.rising = state.by === index ? !state.rising : text;
        state.by = index;
        fill();
      });
      heading.append(button);
      head.append(heading);
    });
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let kept = rows.map((_, row) => row).filter((row) => {
      if (onlyFront.checked && !front[row]) return false;
      const text = [at.trial_id, at.state, at.reason, at.behaviour].map((i) => rows[row][i]).join(" ").toLowerCase();
      return words.every((word) => text.includes(word));
    });
    if (state.by !== null) kept.sort(order);
    const visible = state.all ? kept : kept.slice(0, CHUNK);
    const body = tag("tbody");
    visible.forEach((row) => {
      const line = tag("tr", undefined, front[row] ? "front" : "");
      shown.forEach((index) => line.append(cell(row, index)));
      body.append(line);
    });
    const top = tag("thead");
    top.append(head);
    table.replaceChildren(top, body);
    more.hidden = visible.length === kept.length;
    more.textContent = `show all ${kept.length} rows`;
  };
  [search, every, onlyFront].forEach((control) => control.addEventListener("input", fill));
  more.addEventListener("click", () => { state.all = true; fill(); });
  fill();
})();
