for (const button of document.querySelectorAll(".ddl button")) {
  button.addEventListener("click", async () => {
    const text = button.previousElementSibling.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "copied";
    } catch {
      // A page that was opened as a file may not write to the clipboard.
      getSelection().selectAllChildren(button.previousElementSibling);
      button.textContent = "press Ctrl+C";
    }
    setTimeout(() => { button.textContent = "copy"; }, 2000);
  });
}
const points = [...document.querySelectorAll("#curve circle")];
const choose = (point) => {
  const count = Number(point.dataset.count);
  points.forEach((other) => other.classList.toggle("on", other === point));
  for (const index of document.querySelectorAll(".index")) {
    index.classList.toggle("off", Number(index.dataset.at) > count);
  }
  document.getElementById("chosen").textContent = point.dataset.words;
};
for (const point of points) {
  point.addEventListener("click", () => choose(point));
  point.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      choose(point);
    }
  });
}
if (points.length > 0) choose(points[points.length - 1]);
