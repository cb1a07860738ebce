// Shows times in the reader's zone, keeps ages current, and replaces what changed every 5 s while
// the page is visible. Without it the page works too: everything here is a link or a form.
"use strict";
(() => {
  const REFRESH_MS = 5000, MISSES = 3;
  const REGIONS = ["trust", "headline", "failed", "strip", "stuck", "training", "counts", "tabs",
    "list", "verdict", "timeline", "notified", "attempts", "siblings", "receivers", "deliveries",
    "mutes", "mute"];
  const find = (id) => document.getElementById(id);
  const served = new Map();
  const loaded = document.querySelector(".clock time");
  // The server's clock decides: that of the reader may be wrong.
  let offset = Date.parse(loaded.dateTime) - Date.now();
  let etag = "", misses = 0, timer = 0;

  const now = () => Date.now() + offset;
  const two = (number) => String(number).padStart(2, "0");
  const month = (date) => date.toLocaleString("en-GB", { month: "short" });

  function shortTime(date) {
    const today = new Date(now());
    const hours = `${two(date.getHours())}:${two(date.getMinutes())}`;
    if (date.toDateString() === today.toDateString()) return `${hours}:${two(date.getSeconds())}`;
    const day = `${date.getDate()} ${month(date)}`;
    const near = date.getFullYear() === today.getFullYear() || Math.abs(today - date) < 180 * 864e5;
    return near ? `${day} ${hours}` : `${day} ${date.getFullYear()}`;
  }

  function age(milliseconds) {
    const seconds = Math.max(milliseconds / 1000, 0);
    for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
      if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
    }
    return `${Math.floor(seconds)} s`;
  }

  function localise(root) {
    for (const each of root.querySelectorAll("time")) {
      const date = new Date(each.dateTime);
      each.textContent = shortTime(date);
      each.title = date.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "long" });
    }
  }

  function set(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  function tick() {
    for (const each of document.querySelectorAll("[data-age]")) {
      set(each, `${age(now() - Date.parse(each.dataset.age))} ago`);
    }
    for (const each of document.querySelectorAll("[data-age-only]")) {
      set(each, age(now() - Date.parse(each.dataset.ageOnly)));
    }
    for (const each of document.querySelectorAll("[data-until]")) {
      set(each, `in ${age(Date.parse(each.dataset.until) - now())}`);
    }
    const staleAt = Date.parse(find("trust")?.dataset.staleAt);
    const old = misses >= MISSES || now() > staleAt;
    document.body.classList.toggle("is-stale", old);
    find("page-stale").hidden = misses < MISSES;
  }

  // The element of `fresh` that stands where `element` stood.
  function counterpart(element, fresh) {
    const key = (each) => [each.tagName, each.getAttribute("href"), each.value, each.textContent,
      each.closest("[id]")?.id].join();
    const wanted = key(element);
    return [...fresh.querySelectorAll(element.tagName)].find((each) => key(each) === wanted);
  }

  function replace(id, fresh) {
    const current = find(id);
    if (!current || !fresh || served.get(id) === fresh.outerHTML) return;
    const selection = getSelection();
    if (!selection.isCollapsed && selection.containsNode(current, true)) return;
    const isFirst = !served.has(id);
    served.set(id, fresh.outerHTML);
    localise(fresh);
    const open = [...current.querySelectorAll("details")].map((each) => each.open);
    fresh.querySelectorAll("details").forEach((each, index) => { each.open = open[index] || false; });
    if (!isFirst) {
      for (const row of fresh.querySelectorAll("[id]")) {
        if (!find(row.id)) row.classList.add("just-changed");
      }
    }
    const focused = current.contains(document.activeElement) && document.activeElement;
    const next = focused && counterpart(focused, fresh);
    // What has the focus and is gone from the new content stays until the focus leaves it.
    if (focused && !next) { served.delete(id); return; }
    current.replaceWith(fresh);
    if (next) next.focus({ preventScroll: true });
  }

  function show(text) {
    const page = new DOMParser().parseFromString(text, "text/html");
    for (const id of REGIONS) replace(id, page.getElementById(id));
    const clock = page.querySelector(".clock time");
    offset = Date.parse(clock.dateTime) - Date.now();
    document.title = page.title;
    const icon = document.querySelector("link[rel=icon]");
    const href = page.querySelector("link[rel=icon]").getAttribute("href");
    if (icon.getAttribute("href") !== href) icon.setAttribute("href", href);
  }

  async function refresh() {
    clearTimeout(timer);
    if (!document.hidden) {
      try {
        const headers = etag ? { "If-None-Match": etag } : {};
        const signal = AbortSignal.timeout(REFRESH_MS - 500);
        const answer = await fetch(location.href, { headers, signal, cache: "no-store" });
        if (answer.status === 200) {
          show(await answer.text());
          etag = answer.headers.get("ETag") || "";
        } else if (answer.status !== 304) {
          throw new Error(answer.statusText);
        }
        misses = 0;
        loaded.dateTime = new Date(now()).toISOString();
        localise(loaded.parentElement);
      } catch {
        misses += 1;
      }
      tick();
    }
    timer = setTimeout(refresh, REFRESH_MS);
  }

  find("zone").textContent = new Date().toLocaleTimeString("en-GB", { timeZoneName: "short" })
    .split(" ").pop();
  find("refreshing").textContent = ", refreshed every 5 s";
  localise(document);
  tick();
  setInterval(tick, 1000);
  timer = setTimeout(refresh, REFRESH_MS);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
})();
