/*
  "What do you expect?": compares what was chosen with what came, and says so in [data-told].

  What came is told by the event "lab:came" on the article, with {value}: the value of a choice.
  Of an experiment that runs on the server it is a line of the run (lab.js), of the others
  their own script sends it. A page that comes with its result says it without a script.
*/
"use strict";

(() => {
  const article = document.querySelector(".lab");
  const told = article.querySelector("[data-told]");

  function words(state) {
    const choice = article.querySelector(`[name="expect"]${state}`);
    return choice?.closest("label").textContent.trim();
  }

  article.addEventListener("lab:start", () => {
    told.textContent = "";
  });

  article.addEventListener("lab:came", ({ detail: { value } }) => {
    const expected = words(":checked");
    const came = words(`[value="${CSS.escape(value)}"]`);
    if (!expected || !came) return;
    const happened = expected === came ? "That is what happened." : `What happened: ${came}.`;
    told.textContent = `You expected: ${expected}. ${happened}`;
  });
})();
