"use strict";
// The slider over frames.  Every text and picture comes ready in the data block; this only puts them in their places.
(() => {
  const data = JSON.parse(document.getElementById("frames").textContent);
  const narrow = window.matchMedia("(max-width: 40rem)");
  const address = (image) => (data.inside ? "data:image/png;base64," + image : image);

  function fill(viewer, frame) {
    const part = (name) => viewer.querySelector(`[data-part="${name}"]`);
    ["frame", "map", "flags"].forEach((kind, k) => {
      for (const image of viewer.querySelectorAll(`img[data-kind="${kind}"]`)) {
        image.src = address(frame[kind]);
        if (image.hasAttribute("data-says")) image.alt = frame.alt[k];
      }
    });
    for (const stack of viewer.querySelectorAll(".stack")) stack.style.aspectRatio = frame.aspect;
    for (const layer of viewer.querySelectorAll(".over")) {
      ["left", "top", "width", "height"].forEach((side, k) => { layer.style[side] = frame.box[k] + "%"; });
    }
    part("label").textContent = frame.label;
    for (const cell of viewer.querySelectorAll("dd[data-fact]")) cell.textContent = frame.facts[cell.dataset.fact];
    const more = part("more");
    if (more) {
      more.replaceChildren(...frame.more.flatMap(([name, text]) => {
        const group = document.createElement("div");
        const term = document.createElement("dt"), value = document.createElement("dd");
        term.textContent = name;
        value.textContent = text;
        group.append(term, value);
        return [group];
      }));
    }
    viewer.querySelectorAll("tr[data-class]").forEach((line, k) => {
      const cells = line.querySelectorAll("td[data-cell]"), bars = line.querySelectorAll(".bar span");
      cells.forEach((cell, i) => { cell.textContent = frame.classes[k][i]; });
      bars.forEach((bar, i) => { bar.style.width = frame.classes[k][6 + i] + "%"; });
    });
  }

  function start(viewer) {
    const rows = JSON.parse(viewer.dataset.rows);
    const slider = viewer.querySelector("input.frames");
    const plots = [...document.querySelectorAll(`.plot[data-viewer="${viewer.id}"]`)];
    const places = (plot) => JSON.parse(narrow.matches ? plot.dataset.narrow : plot.dataset.wide);
    let at = Number(slider.value);

    function mark() {
      for (const plot of plots) {
        const [x, top, bottom] = places(plot)[at], line = plot.querySelector(".cursor");
        line.style.left = 100 * x + "%";
        line.style.top = 100 * top + "%";
        line.style.height = 100 * (bottom - top) + "%";
        line.hidden = false;
      }
    }
    function show(place) {
      at = Math.min(Math.max(place, 0), rows.length - 1);
      const frame = data.rows[rows[at]];
      slider.value = at;
      slider.setAttribute("aria-valuetext", `${frame.label}, ${at + 1} of ${rows.length}`);
      viewer.querySelector('[data-part="place"]').textContent = `${at + 1} of ${rows.length}`;
      fill(viewer, frame);
      mark();
    }
    function choose(plot, event) {
      const box = plot.querySelector("img").getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
      const far = places(plot).map(([px, top, bottom]) => Math.abs(px - x) + (y < top || y > bottom ? 10 : 0));
      show(far.indexOf(Math.min(...far)));
    }
    slider.addEventListener("input", () => show(Number(slider.value)));
    viewer.querySelector(".before").addEventListener("click", () => show(at - 1));
    viewer.querySelector(".next").addEventListener("click", () => show(at + 1));
    for (const plot of plots) plot.addEventListener("click", (event) => choose(plot, event));
    narrow.addEventListener("change", mark);
    show(at);
  }

  for (const viewer of document.querySelectorAll(".viewer")) {
    const strength = viewer.querySelector("input.strength");
    strength.addEventListener("input", () => viewer.style.setProperty("--strength", strength.value / 100));
    if (viewer.dataset.rows) start(viewer);
  }
  document.documentElement.classList.add("ready");
})();
