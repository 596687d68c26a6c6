"use strict";
// Shows the values of a chart under the pointer, or at the point reached with the arrow keys.
(() => {
  const charts = JSON.parse(document.getElementById("chart-data").textContent);
  const format = (value) => value === null ? "–"
    : Math.abs(value) >= 1e6 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(3)
    : Number(value.toPrecision(5)).toLocaleString("en-US", {maximumFractionDigits: 6});

  function nearest(xs, target) {
    let low = 0, high = xs.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (xs[middle] < target) low = middle; else high = middle;
    }
    return Math.abs(xs[low] - target) <= Math.abs(xs[high] - target) ? low : high;
  }

  for (const figure of document.querySelectorAll("figure[data-chart]")) {
    const chart = charts[figure.dataset.chart];
    const svg = figure.querySelector("svg"), readout = figure.querySelector(".readout");
    const [left, top, right, bottom] = chart.box;
    const scale = (x) => chart.x_log ? Math.log(x) : x;
    const [first, last] = chart.x.map(scale);
    // Positions are shares of the axis, from 0 at its left end to 1.
    const share = (x) => (scale(x) - first) / (last - first);
    const curves = chart.curves.filter((curve) => curve.x.length)
      .map((curve) => ({...curve, shares: curve.x.map(share)}));
    const stops = [...new Set(curves.flatMap((curve) => curve.shares))].sort((one, other) => one - other);
    const hint = readout.textContent;
    const cursor = document.createElement("span");
    cursor.className = "cursor";
    cursor.hidden = true;
    figure.append(cursor);
    let position = null;

    function show(target) {
      if (!curves.length) return;
      const found = curves.map((curve) => [curve, nearest(curve.shares, target)]);
      const distance = ([curve, index]) => Math.abs(curve.shares[index] - target);
      const [closest, number] = found.reduce((one, other) => distance(other) < distance(one) ? other : one);
      position = closest.shares[number];
      const parts = found.filter(([curve, index]) => Math.abs(curve.shares[index] - position) <= 0.04)
        .map(([curve, index]) => `${curve.name} ${format(curve.y[index])}`);
      readout.textContent = `${chart.x_label} ${format(closest.x[number])}: ${parts.join(", ")}`;
      const zoom = svg.clientWidth / svg.viewBox.baseVal.width;
      const image = svg.getBoundingClientRect(), frame = figure.getBoundingClientRect();
      cursor.style.left = `${image.left - frame.left + (left + position * (right - left)) * zoom}px`;
      cursor.style.top = `${image.top - frame.top + top * zoom}px`;
      cursor.style.height = `${(bottom - top) * zoom}px`;
      cursor.hidden = false;
    }
    function hide() {
      cursor.hidden = true;
      readout.textContent = hint;
    }
    // Moves to the next point in a direction that is at least this share of the axis away.
    function move(direction, least) {
      if (position === null) return show(stops[0]);
      const goal = position + direction * least;
      const ahead = stops.filter((stop) => direction * (stop - goal) >= -1e-9);
      show(direction > 0 ? ahead[0] ?? stops.at(-1) : ahead.at(-1) ?? stops[0]);
    }
    svg.addEventListener("pointermove", (event) => {
      const zoom = svg.clientWidth / svg.viewBox.baseVal.width;
      const x = (event.clientX - svg.getBoundingClientRect().left) / zoom;
      show((x - left) / (right - left));
    });
    svg.addEventListener("pointerleave", hide);
    figure.addEventListener("keydown", (event) => {
      if (!stops.length) return;
      if (event.key === "ArrowRight") move(1, event.shiftKey ? 0.1 : 0.01);
      else if (event.key === "ArrowLeft") move(-1, event.shiftKey ? 0.1 : 0.01);
      else if (event.key === "Home") show(stops[0]);
      else if (event.key === "End") show(stops.at(-1));
      else if (event.key === "Escape") hide();
      else return;
      event.preventDefault();
    });
    figure.addEventListener("blur", hide);
  }
  // A shadow at each side where a table continues.
  function mark(box) {
    const rest = box.scrollWidth - box.clientWidth - box.scrollLeft;
    box.classList.toggle("continues-left", box.scrollLeft > 1);
    box.classList.toggle("continues-right", rest > 1);
  }
  const boxes = [...document.querySelectorAll(".scroll")];
  boxes.forEach((box) => { mark(box); box.addEventListener("scroll", () => mark(box)); });
  addEventListener("resize", () => boxes.forEach(mark));
})();
