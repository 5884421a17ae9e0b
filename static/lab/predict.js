/*
  Predict: remembers in this browser which situations were answered, and which of them right.

  The page works without this script. Only the marks in the list are missing then.
*/
"use strict";

(() => {
  const KEY = "lab-predict"; // In localStorage: {slug: whether all three answers were right}.
  const article = document.querySelector(".lab");
  const verdict = article.querySelector("#verdict");
  const links = [...article.querySelectorAll("[data-situation]")];
  const count = article.querySelector("[data-count]");
  const next = article.querySelector("[data-next]");
  const forget = article.querySelector("[data-forget]");

  function remembered() {
    try {
      return Object(JSON.parse(localStorage.getItem(KEY)));
    } catch {
      return {}; // Not allowed in this browser, or not JSON.
    }
  }

  function remember(answers) {
    try {
      localStorage.setItem(KEY, JSON.stringify(answers));
    } catch {
      // Not allowed in this browser: there are no marks.
    }
  }

  function show(answers) {
    const answered = links.filter((link) => link.dataset.situation in answers);
    const right = answered.filter((link) => answers[link.dataset.situation] === true);
    for (const link of links) {
      link.parentElement.querySelector(".predict-mark")?.remove();
      if (!answered.includes(link)) continue;
      const mark = document.createElement("span");
      mark.className = "predict-mark";
      mark.textContent = right.includes(link) ? " ✓ right" : " ✗ wrong";
      link.after(mark);
    }
    const first = links.find((link) => !answered.includes(link)) || links[0];
    next.value = first.dataset.situation;
    next.form.querySelector("[data-start]").textContent = answered.length ? "Go on" : "Begin";
    forget.hidden = !answered.length;
    count.textContent = answered.length
      ? `You answered ${answered.length} of ${links.length}, and ${right.length} of them right. Only this browser knows.`
      : "";
  }

  if (verdict) verdict.focus(); // Scrolls to it, too.
  if (verdict?.dataset.answered) {
    remember({ ...remembered(), [verdict.dataset.answered]: verdict.dataset.right === "3" });
  }
  if (!next) return;
  show(remembered());
  forget.addEventListener("click", () => {
    remember({});
    show({});
    next.form.querySelector("[data-start]").focus(); // Its own button is hidden now.
    count.textContent = "Your answers are forgotten.";
  });
})();
