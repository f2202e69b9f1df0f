// Shows the page's content anew whenever the server says that it is another. Without it, a page is as it was when it was loaded.
(() => {
  "use strict";
  const main = document.getElementById("content");
  const state = document.getElementById("state");
  const pause = document.getElementById("pause");
  if (!window.EventSource || !main || !document.querySelector("nav")) return;

  const BUSY = 10 * 60 * 1000; // for so long after somebody has done something, sidecars report every second
  let source = null, paused = false, done = Date.now(), held = null, away = 0, again = 0;

  const say = (word, kind) => {
    if (state.textContent !== word) state.textContent = word;
    state.className = kind;
  };

  // What somebody has opened, scrolled and chosen stays.
  const swap = (html) => {
    const open = [...main.querySelectorAll("details[open][id]")].map((one) => one.id);
    const scrolled = [...main.querySelectorAll(".scroll, .map")].map((one) => [one.scrollLeft, one.scrollTop]);
    const active = main.contains(document.activeElement) && document.activeElement !== main ? document.activeElement : null;
    const nameOf = (one) => [one.localName, one.id || one.getAttribute("href") || one.getAttribute("aria-label") || ""].join(" ");
    const name = active && nameOf(active);
    const alike = () => [...main.querySelectorAll("a, button, summary, [tabindex]")].filter((one) => nameOf(one) === name);
    const place = alike().indexOf(active);
    main.innerHTML = html;
    open.forEach((id) => { const one = document.getElementById(id); if (one) one.open = true; });
    if (active) { const all = alike(), one = all[place] || all[0]; if (one) one.focus({ preventScroll: true }); }
    main.querySelectorAll(".scroll, .map").forEach((one, at) => {
      if (scrolled[at]) [one.scrollLeft, one.scrollTop] = scrolled[at];
    });
    light();
  };

  const show = (html) => {
    const chosen = window.getSelection();
    const active = document.activeElement;
    // Not while somebody marks or chooses something in it.
    const isMarked = chosen && !chosen.isCollapsed && main.contains(chosen.anchorNode);
    if (isMarked || (main.contains(active) && active.matches("select, input"))) { held = html; return; }
    held = null;
    swap(html);
  };

  const close = () => { if (source) { source.close(); source = null; } };

  const follow = () => {
    close();
    clearTimeout(again);
    if (paused || document.hidden) return;
    const url = new URL(location.href);
    url.hash = "";
    if (Date.now() - done < BUSY) url.searchParams.set("often", "1");
    source = new EventSource(url);
    const heard = (then) => (event) => { away = 0; say("Live", "on"); then(event); };
    source.addEventListener("content", heard((event) => show(event.data)));
    source.addEventListener("same", heard((event) => {
      if (held) show(held);
      if (held) return; // What is shown is older than what the footer would say.
      const footer = main.querySelector("footer");
      if (footer && event.data) footer.outerHTML = event.data;
    }));
    source.addEventListener("full", () => {
      say("Too many look on; reload by hand", "off");
      close();
      again = setTimeout(follow, 30000);
    });
    source.addEventListener("away", () => say("The control plane does not answer", "off"));
    source.addEventListener("error", () => {
      // A stream ends now and then, and is asked for anew.
      away += 1;
      if (away > 3) say("Not connected", "off");
      close();
      again = setTimeout(follow, away > 3 ? 5000 : 500);
    });
  };

  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Go on" : "Pause";
    if (paused) say("Paused", "off");
    follow();
  });
  document.addEventListener("visibilitychange", follow);
  ["pointerdown", "keydown", "wheel"].forEach((kind) => document.addEventListener(kind, () => {
    const was = Date.now() - done >= BUSY;
    done = Date.now();
    if (was) follow();
  }, { passive: true }));

  // In the map, whoever is pointed at is shown with what it talks to.
  let lit = null;
  const light = () => {
    const map = main.querySelector("svg.map");
    if (!map) return;
    map.classList.toggle("dim", lit !== null);
    map.querySelectorAll(".lit").forEach((one) => one.classList.remove("lit"));
    if (lit === null) return;
    map.querySelectorAll("[data-from]").forEach((edge) => {
      if (edge.dataset.from !== lit && edge.dataset.to !== lit) return;
      edge.classList.add("lit");
      [edge.dataset.from, edge.dataset.to].forEach((name) => {
        const node = map.querySelector(`[data-node="${CSS.escape(name)}"]`);
        if (node) node.classList.add("lit");
      });
    });
    const own = map.querySelector(`[data-node="${CSS.escape(lit)}"]`);
    if (own) own.classList.add("lit");
  };
  const point = (event) => {
    const node = event.target.closest ? event.target.closest("[data-node]") : null;
    const name = node && main.contains(node) ? node.dataset.node : null;
    if (name !== lit) { lit = name; light(); }
  };
  main.addEventListener("pointerover", point);
  main.addEventListener("focusin", point);

  follow();
})();
