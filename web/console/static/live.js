// The charts of the live page: numbers by server-sent events, drawn as SVG. Text is only ever set as text.
"use strict";

(function () {
  const POINTS_MAX = 150, WIDTH = 420, HEIGHT = 124, LEFT = 52, BOTTOM = 18, TOP = 8, SERIES_MAX = 5;
  const SVG = "http://www.w3.org/2000/svg";
  const WORDS = {
    PENDING: ["Pending", "calm"], PROCESSING: ["Processing", "busy"], REQUIRES_ACTION: ["Needs the shopper", "busy"],
    AUTHORIZED: ["Authorized", "busy"], SUCCEEDED: ["Succeeded", "good"], FAILED: ["Failed", "bad"],
    UNKNOWN: ["Unknown", "odd"], CANCELLED: ["Cancelled", "calm"], PARTIALLY_REFUNDED: ["Partly refunded", "good"],
    REFUNDED: ["Refunded", "calm"],
  };
  let points = [];

  function make(name, attributes, text) {
    const one = document.createElementNS(SVG, name);
    for (const key of Object.keys(attributes)) one.setAttribute(key, attributes[key]);
    if (text !== undefined) one.textContent = text;
    return one;
  }

  function html(name, className, text) {
    const one = document.createElement(name);
    if (className) one.className = className;
    if (text !== undefined) one.textContent = text;
    return one;
  }

  function nice(most) {
    const power = Math.pow(10, Math.floor(Math.log10(Math.max(most, 1))));
    return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= most) || 10 * power;
  }

  // series: [{name, values, later?}]; a value that is null is a gap.
  function draw(id, title, written, series) {
    const place = document.getElementById(id);
    const shown = series.slice(0, SERIES_MAX * 2);
    const most = nice(Math.max(1, ...shown.flatMap((one) => one.values).filter((value) => value !== null)));
    const picture = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title });
    for (const share of [0, 0.5, 1]) {
      const y = HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP);
      picture.append(make("line", { class: "axis", x1: LEFT, x2: WIDTH, y1: y, y2: y }));
      picture.append(make("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, written(most * share)));
    }
    picture.append(make("text", { x: LEFT, y: HEIGHT - 4 }, "5 min ago"));
    picture.append(make("text", { x: WIDTH, y: HEIGHT - 4, "text-anchor": "end" }, "now"));
    shown.forEach((one, at) => {
      const colour = `series-${(one.colour === undefined ? at : one.colour) % SERIES_MAX}`;
      let path = "", drawing = false;
      one.values.forEach((value, index) => {
        if (value === null) { drawing = false; return; }
        const x = WIDTH - (one.values.length - 1 - index) * (WIDTH - LEFT) / (POINTS_MAX - 1);
        const y = HEIGHT - BOTTOM - Math.min(1, value / most) * (HEIGHT - BOTTOM - TOP);
        path += `${drawing ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
        drawing = true;
      });
      if (path) picture.append(make("path", { class: `line ${colour}${one.later ? " later" : ""}`, d: path }));
    });
    const legend = html("ul", "legend");
    if (shown.length > 1) {
      shown.forEach((one, at) => {
        const colour = `series-${(one.colour === undefined ? at : one.colour) % SERIES_MAX}`;
        legend.append(html("li", colour, `${one.later ? "┄" : "━"} ${one.name}`));
      });
    }
    place.replaceChildren(picture, legend);
  }

  function fill(id, rows, columns, empty) {
    const body = document.querySelector(`#${id} tbody`);
    if (rows.length === 0) {
      const row = html("tr"), cell = html("td", "empty", empty);
      cell.colSpan = columns;
      row.append(cell);
      body.replaceChildren(row);
    } else {
      body.replaceChildren(...rows);
    }
  }

  function row(cells) {
    const one = html("tr");
    one.append(...cells);
    return one;
  }

  function cellWith(inner, className) {
    const cell = html("td", className);
    cell.append(inner);
    return cell;
  }

  function chip(text, tone) {
    return html("span", `chip tone-${tone}`, text);
  }

  function shareOf(count, all) {
    const bar = document.createElement("meter");
    bar.max = all;
    bar.value = count;
    bar.textContent = `${Math.round(100 * count / all)} %`;
    return bar;
  }

  function milliseconds(value) {
    return value === null ? "–" : value < 1000 ? `${value} ms` : `${Math.round(value / 100) / 10} s`;
  }

  function show() {
    const now = points[points.length - 1];
    if (now === undefined) return;
    for (const one of document.querySelectorAll("[data-live]")) {
      const value = now[one.dataset.live];
      one.textContent = value === null ? "–" : String(value);
    }
    const outcomes = Object.entries(now.outcomes);
    const all = outcomes.reduce((sum, [, count]) => sum + count, 0);
    fill("table-outcomes", outcomes.map(([word, count]) => {
      const [label, tone] = WORDS[word] || [word, "calm"];
      return row([cellWith(chip(label, tone)), html("td", "number", String(count)), cellWith(shareOf(count, all))]);
    }), 3, "None in this minute.");
    fill("table-providers", Object.entries(now.providers).map(([name, it]) => row([
      html("th", "", name), html("td", "number", String(it.calls)), html("td", "number", milliseconds(it.p50Ms)),
      html("td", "number", milliseconds(it.p95Ms)),
      cellWith(it.breakerOpen ? chip("open: not asked", "bad") : chip("closed", "good")),
    ])), 5, "None yet.");
    fill("table-lag", Object.entries(now.lag).map(([stream, count]) => row([
      html("th", "", stream), html("td", "number", String(count)),
    ])), 2, "Nothing is read here now.");
    draw("chart-rate", "Payments a second over five minutes", String, [
      { name: "now", values: points.map((it) => it.perSecond) },
    ]);
    const providers = [...new Set(points.flatMap((it) => Object.keys(it.providers)))].sort();
    const latency = (name, key) => points.map((it) => (it.providers[name] ? it.providers[name][key] : null));
    draw("chart-latency", "Latency by provider over five minutes", milliseconds, providers.flatMap((name, at) => [
      { name: `${name}, half`, colour: at, values: latency(name, "p50Ms") },
      { name: `${name}, 95 %`, colour: at, later: true, values: latency(name, "p95Ms") },
    ]));
    const streams = [...new Set(points.flatMap((it) => Object.keys(it.lag)))].sort();
    draw("chart-lag", "Records not finished over five minutes", String, streams.map((stream) => ({
      name: stream, values: points.map((it) => (stream in it.lag ? it.lag[stream] : null)),
    })));
  }

  function tell(text, tone) {
    const state = document.getElementById("live-state");
    if (state.textContent !== text) {
      state.textContent = text;
      state.className = `chip tone-${tone}`;
    }
  }

  const source = new EventSource("/console/live/events");
  source.addEventListener("history", (event) => {
    points = JSON.parse(event.data).slice(-POINTS_MAX);
    tell("live", "good");
    show();
  });
  source.addEventListener("point", (event) => {
    points = [...points, JSON.parse(event.data)].slice(-POINTS_MAX);
    tell("live", "good");
    show();
  });
  source.addEventListener("error", () => {
    const over = source.readyState === EventSource.CLOSED;
    tell(over ? "ended: load the page again" : "connecting again…", over ? "bad" : "busy");
  });
})();
