// Draws a figure in the colours of the page when the figure comes near the screen. Before printing, draws all figures in light colours.
(() => {
  "use strict";
  const PAPER = "#fffffe", INK = "#222223"; // figures/style.py writes these colours, and the page replaces them
  const BRIGHTER = { "#0072B2": "#4FA3E0", "#D55E00": "#F58A42", "#009E73": "#35C296", "#CC79A7": "#DD93BC", "#56B4E9": "#9AD4F5" }; // on dark ground
  const BUTTONS = [["toImage", "zoom2d", "pan2d", "resetScale2d"]]; // plotly's default buttons include one that sends the figure to a server
  const PRINT_WIDTH = 690, PRINT_HALF = 335; // pixels of an A4 page between its margins
  const PHONE = 520; // pixels; on a narrower screen the small texts of a figure would overlap
  const root = document.documentElement;
  const words = JSON.parse(document.getElementById("words").textContent);
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const specs = new Map();
  const drawn = new Set();

  function specOf(box) {
    if (!specs.has(box)) {
      const source = document.querySelector(`script[data-for="${box.id}"]`).textContent;
      const spec = JSON.parse(source);
      for (const trace of spec.data) {
        if (Array.isArray(trace.text)) trace.text = trace.text.map((word) => (typeof word === "number" ? words[word] : word));
      }
      specs.set(box, spec);
    }
    return specs.get(box);
  }

  function palette() {
    const style = getComputedStyle(root);
    const named = (name) => style.getPropertyValue(name).trim();
    return { paper: named("--paper"), ink: named("--ink"), dark: isDark(), line: named("--line"), grid: named("--grid") };
  }

  // Returns a copy in the colours of the page. Replaces the two placeholder colours everywhere and sets the colours of every axis.
  function coloured(value, colours) {
    if (value === PAPER) return colours.paper;
    if (value === INK) return colours.ink;
    if (colours.dark && typeof value === "string") return BRIGHTER[value] ?? value;
    if (Array.isArray(value)) {
      // An array of numbers has no colours, so it is not copied. A stop of a colour scale is an array of a number and a colour.
      const isNumbers = value.length > 0 && typeof value[0] === "number" && typeof value[value.length - 1] !== "string";
      return isNumbers ? value : value.map((each) => coloured(each, colours));
    }
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, coloured(each, colours)]));
    }
    return value;
  }

  function layoutOf(box, spec, colours, width) {
    const layout = coloured(spec.layout, colours);
    layout.paper_bgcolor = "rgba(0,0,0,0)";
    layout.plot_bgcolor = "rgba(0,0,0,0)";
    layout.font = { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: colours.ink, ...layout.font };
    layout.hoverlabel = {
      bgcolor: colours.paper, bordercolor: colours.line, align: "left", font: { color: colours.ink, size: 12 }, namelength: 0, ...layout.hoverlabel,
    };
    for (const key of Object.keys(layout).filter((name) => /^[xy]axis\d*$/.test(name))) {
      layout[key] = { gridcolor: colours.grid, linecolor: colours.line, zerolinecolor: colours.line, tickcolor: colours.line, ...layout[key] };
    }
    layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: colours.line, activecolor: colours.ink };
    layout.autosize = width === undefined;
    if (width !== undefined) layout.width = width;
    if ((width ?? box.clientWidth) < PHONE) layout.annotations = [];
    return layout;
  }

  function draw(box, width) {
    const spec = specOf(box), colours = palette();
    drawn.add(box);
    const config = { responsive: width === undefined, displaylogo: false, displayModeBar: width === undefined ? "hover" : false, modeBarButtons: BUTTONS };
    return Plotly.react(box, coloured(spec.data, colours), layoutOf(box, spec, colours, width), config).then(() => { box.dataset.drawn = "yes"; });
  }

  const boxes = [...document.querySelectorAll(".plot")];
  const near = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting) { near.unobserve(entry.target); draw(entry.target); }
      }
    },
    { rootMargin: "500px" },
  );
  boxes.forEach((box) => near.observe(box));

  const button = document.getElementById("theme");
  function repaint() {
    button.setAttribute("aria-pressed", String(isDark()));
    drawn.forEach((box) => draw(box));
  }
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; repaint(); });
  system.addEventListener("change", repaint);
  button.setAttribute("aria-pressed", String(isDark()));

  let theme;
  addEventListener("beforeprint", () => {
    theme = root.dataset.theme;
    root.dataset.theme = "light";
    near.disconnect(); // all figures are drawn now; the layout of the paper must not draw them again for the screen
    boxes.forEach((box) => draw(box, box.closest(".narrow") ? PRINT_HALF : PRINT_WIDTH));
  });
  addEventListener("afterprint", () => {
    if (theme === undefined) delete root.dataset.theme; else root.dataset.theme = theme;
    repaint();
  });
})();
