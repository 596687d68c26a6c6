"use strict";
// Shows the values of a chart under the pointer, or at the position moved by the arrow keys.
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
    const [left, top, right, bottom] = chart.box, [first, last] = chart.x;
    const hint = readout.textContent;
    const cursor = document.createElement("span");
    cursor.className = "cursor";
    cursor.hidden = true;
    figure.append(cursor);
    let position = null;

    function show(x) {
      position = Math.min(last, Math.max(first, x));
      const found = chart.curves.filter((curve) => curve.x.length).map((curve) => {
        const index = nearest(curve.x, position);
        return [curve, index, Math.abs(curve.x[index] - position)];
      });
      if (!found.length) return;
      const closest = found.reduce((one, other) => other[2] < one[2] ? other : one);
      const at = closest[0].x[closest[1]];
      const near = (last - first) / 25;
      const parts = found.filter((each) => Math.abs(each[0].x[each[1]] - at) <= near)
        .map(([curve, index]) => `${curve.name} ${format(curve.y[index])}`);
      readout.textContent = `${chart.x_label} ${format(at)}: ${parts.join(", ")}`;
      const scale = svg.clientWidth / svg.viewBox.baseVal.width;
      const share = (at - first) / (last - first);
      cursor.style.left = `${svg.offsetLeft + figure.clientLeft + (left + share * (right - left)) * scale}px`;
      cursor.style.left = `${svg.getBoundingClientRect().left - figure.getBoundingClientRect().left + (left + share * (right - left)) * scale}px`;
      cursor.style.top = `${svg.getBoundingClientRect().top - figure.getBoundingClientRect().top + top * scale}px`;
      cursor.style.height = `${(bottom - top) * scale}px`;
      cursor.hidden = false;
    }
    function hide() {
      cursor.hidden = true;
      readout.textContent = hint;
    }
    svg.addEventListener("pointermove", (event) => {
      const scale = svg.clientWidth / svg.viewBox.baseVal.width;
      const x = (event.clientX - svg.getBoundingClientRect().left) / scale;
      show(first + (x - left) / (right - left) * (last - first));
    });
    svg.addEventListener("pointerleave", hide);
    figure.addEventListener("keydown", (event) => {
      const step = (last - first) / (event.shiftKey ? 10 : 100);
      const start = position ?? first;
      if (event.key === "ArrowRight") show(start + step);
      else if (event.key === "ArrowLeft") show(start - step);
      else if (event.key === "Home") show(first);
      else if (event.key === "End") show(last);
      else if (event.key === "Escape") hide();
      else return;
      event.preventDefault();
    });
    figure.addEventListener("blur", hide);
  }
  const mark = () => {
    for (const box of document.querySelectorAll(".scroll")) box.classList.toggle("cut", box.scrollWidth > box.clientWidth + 1);
  };
  mark();
  addEventListener("resize", mark);
})();
