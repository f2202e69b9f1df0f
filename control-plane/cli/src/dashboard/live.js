// Shows the page's content anew whenever the server says that it is another. Without it, a page is as it was when it was loaded.
(() => {
  "use strict";
  const main = document.getElementById("content");
  const state = document.getElementById("state");
  const pause = document.getElementById("pause");
  const stale = document.getElementById("stale");
  if (!window.EventSource || !main || !document.querySelector("nav")) return;

  const BUSY = 10 * 60 * 1000; // for so long after somebody has done something, sidecars report every second
  // A stream says something every two seconds. A phone that has lost its network is told of no error, only of nothing at all.
  const FIRST = 3 * 1000, LATE = 10 * 1000, LOST = 30 * 1000;
  let source = null, paused = false, done = Date.now(), held = null, away = 0, again = 0;
  let heardAt = Date.now(), openedAt = Date.now();

  const say = (word, kind) => {
    if (state.textContent !== word) state.textContent = word;
    state.className = kind;
  };

  // Whoever looks at old figures must not take them for new ones, wherever the page is scrolled to.
  const old = (why) => {
    const at = new Date(heardAt), isToday = Date.now() - heardAt < 12 * 60 * 60 * 1000;
    const words = `Not live since ${isToday ? at.toLocaleTimeString() : at.toLocaleString()}: ${why}.`;
    if (stale.textContent !== words) stale.textContent = words;
    stale.hidden = false;
    main.classList.add("old");
    say("Not live", "off");
  };
  const fresh = () => {
    heardAt = Date.now();
    away = 0;
    stale.hidden = true;
    main.classList.remove("old");
    say("Live", "on");
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
    openedAt = Date.now();
    const heard = (then) => (event) => { fresh(); then(event); };
    source.addEventListener("content", heard((event) => show(event.data)));
    source.addEventListener("same", heard((event) => {
      if (held) show(held);
      if (held) return; // What is shown is older than what the footer would say.
      const footer = main.querySelector("footer");
      if (footer && event.data) footer.outerHTML = event.data;
    }));
    source.addEventListener("full", () => {
      old("too many look on; reload the page by hand");
      close();
      again = setTimeout(follow, 30000);
    });
    source.addEventListener("away", () => {
      openedAt = Date.now();
      old("the control plane does not answer; it is asked again and again");
    });
    source.addEventListener("error", () => {
      // A stream ends now and then, and is asked for anew.
      away += 1;
      if (away > 3) old("the connection is lost; it is tried again and again");
      close();
      again = setTimeout(follow, away > 3 ? 5000 : 500);
    });
  };

  setInterval(() => {
    if (paused || document.hidden || !source) return;
    const now = Date.now();
    if (now - heardAt > LATE && now - openedAt > FIRST) old("nothing is heard any more; it is tried again and again");
    if (now - Math.max(heardAt, openedAt) > LOST) follow();
  }, 1000);
  addEventListener("offline", () => { if (!paused) old("this device has no network; it is tried again when it has"); });
  addEventListener("online", () => follow());

  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Go on" : "Pause";
    if (paused) { stale.hidden = true; main.classList.remove("old"); say(`Paused at ${new Date(heardAt).toLocaleTimeString()}`, "off"); }
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
