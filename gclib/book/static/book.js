// The switch for solutions, remembered by the browser. Without scripts, each one opens by itself.
(function () {
  "use strict";
  const KEY = "gclib-solutions";
  function remembered() {
    try {
      return localStorage.getItem(KEY) === "shown";
    } catch (error) {
      return false; // storage is closed to this page
    }
  }
  function remember(shown) {
    try {
      localStorage.setItem(KEY, shown ? "shown" : "folded");
    } catch (error) {
      // then it holds for this page alone
    }
  }

  function reveal() {
    // A link may lead into something folded.
    const id = decodeURIComponent(location.hash.slice(1));
    const target = id && document.getElementById(id);
    for (let node = target; node; node = node.parentElement) {
      if (node.tagName === "DETAILS") node.open = true;
    }
    if (target) target.scrollIntoView();
  }

  function addSwitch() {
    const solutions = Array.from(document.querySelectorAll("details.solution"));
    const title = document.querySelector("article h1");
    if (!solutions.length || !title) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "solutions-switch";
    button.setAttribute("role", "switch");
    const knob = document.createElement("span");
    knob.className = "knob";
    knob.setAttribute("aria-hidden", "true");
    button.append(knob, "Show solutions");
    function show(shown) {
      button.setAttribute("aria-checked", String(shown));
      solutions.forEach((one) => (one.open = shown));
    }
    button.addEventListener("click", function () {
      const shown = button.getAttribute("aria-checked") !== "true";
      remember(shown);
      const before = button.getBoundingClientRect().top;
      show(shown);
      window.scrollBy(0, button.getBoundingClientRect().top - before);
    });
    show(remembered());
    title.after(button);
  }

  function openMenusByKeyboard() {
    // The theme's buttons of small screens are labels, which no key reaches.
    document.querySelectorAll("label[for=__navigation], label[for=__toc]").forEach((label) => {
      if (label.classList.contains("overlay")) return;
      const what = label.htmlFor === "__toc" ? "Contents of this page" : "Contents of the book";
      label.tabIndex = 0;
      label.setAttribute("role", "button");
      label.setAttribute("aria-label", what);
      label.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") {
          event.preventDefault();
          label.click();
        }
      });
    });
  }

  function keepWords() {
    const field = document.getElementById("search-words");
    if (field) field.value = new URLSearchParams(location.search).get("q") || "";
  }

  document.addEventListener("DOMContentLoaded", function () {
    keepWords();
    addSwitch();
    openMenusByKeyboard();
    reveal();
    window.addEventListener("hashchange", reveal);
  });
})();
