// Keeps pages up to date and copies commands. Without this script they work by reloading.
"use strict";

(() => {
  document.documentElement.classList.add("scripted");

  // The clipboard's own interface is for pages over TLS.
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.copy");
    if (!button) return;
    getSelection().selectAllChildren(button.parentElement.querySelector("code"));
    button.textContent = document.execCommand("copy") ? "Copied" : "Press Ctrl+C";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });

  // The server knows UTC alone. Swedish dates read like the server's.
  const zone = document.getElementById("zone");
  if (zone) {
    for (const time of document.querySelectorAll("time")) {
      time.title = time.textContent + " UTC";
      time.textContent = new Date(time.dateTime).toLocaleString("sv-SE");
    }
    zone.textContent = "Times are your own; the days to choose from are in UTC.";
  }

  // A reload or a bookmark should not show an old outcome again.
  const address = new URL(location.href);
  if (address.searchParams.has("outcome")) {
    address.searchParams.delete("outcome");
    history.replaceState(null, "", address);
  }

  // A part of a page that is fetched again until it says that nothing will change any more.
  setInterval(async () => {
    const part = document.querySelector("[data-refresh]");
    if (!part || document.hidden) return;
    const page = await fetch(location.pathname).then((answer) => answer.text(), () => "");
    const fresh = new DOMParser().parseFromString(page, "text/html").getElementById(part.id);
    if (fresh && !part.isEqualNode(fresh)) part.replaceWith(fresh);
  }, 2000);

  const live = document.getElementById("live");
  const connection = document.getElementById("connection");
  const news = document.getElementById("news");
  if (!live || !live.dataset.events) return;

  // The server sends something at least every 15 s.
  const SILENCE = 35000;
  const RETRY = 5000;
  let source = null;
  let watchdog = 0;
  let retry = 0;
  let build = null;

  function say(sentence) {
    connection.textContent = sentence;
    connection.hidden = !sentence;
    live.classList.toggle("stale", Boolean(sentence));
  }

  // Replace what changed and leave everything else alone, with its focus and selection.
  function sync(old, fresh) {
    if (old.isEqualNode(fresh)) return;
    const keyed = (node) => node.children.length > 0 && [...node.children].every((c) => c.id);
    if (!keyed(fresh) || (old.children.length > 0 && !keyed(old))) {
      const focused = old.contains(document.activeElement) && document.activeElement.id;
      old.replaceWith(fresh);
      if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
      return;
    }
    const known = new Map([...old.children].map((child) => [child.id, child]));
    let place = old.firstElementChild;
    for (const child of [...fresh.children]) {
      const match = known.get(child.id);
      if (!match) {
        old.insertBefore(child, place);
        continue;
      }
      known.delete(child.id);
      if (match === place) place = place.nextElementSibling;
      else old.insertBefore(match, place);
      sync(match, child);
    }
    for (const gone of known.values()) gone.remove();
  }

  function devices(root) {
    return new Map([...root.querySelectorAll("[data-news]")].map((d) => [d.id, d.dataset.news]));
  }

  // For those who do not see the page: what changed, once, in a sentence.
  function announce(before, after) {
    const said = [];
    for (const [id, text] of after) if (before.get(id) !== text) said.push(text);
    for (const [id, text] of before) {
      if (!after.has(id)) said.push(text.slice(0, text.lastIndexOf(":")) + ": unplugged");
    }
    if (said.length > 0) news.textContent = said.join(". ");
  }

  function show(html) {
    const fresh = new DOMParser().parseFromString(html, "text/html").getElementById("live");
    if (!fresh) return;
    announce(devices(live), devices(fresh));
    fresh.className = live.className;
    sync(live, fresh);
  }

  function close() {
    clearTimeout(watchdog);
    clearTimeout(retry);
    if (source) source.close();
    source = null;
  }

  function heard() {
    say("");
    clearTimeout(watchdog);
    watchdog = setTimeout(() => lost("The Pi has fallen silent."), SILENCE);
  }

  function lost(why) {
    close();
    say(why + " Trying again. What is shown may be out of date.");
    retry = setTimeout(open, RETRY);
  }

  function open() {
    close();
    source = new EventSource(live.dataset.events);
    source.addEventListener("build", (event) => {
      // Another version of the appliance: its page may not fit this script.
      if (build !== null && build !== event.data) location.reload();
      build = event.data;
    });
    source.addEventListener("picture", (event) => {
      heard();
      show(event.data);
    });
    source.addEventListener("alive", heard);
    source.onerror = async () => {
      close();
      // Whoever is signed out is sent to another page.
      const ask = { method: "HEAD", redirect: "manual" };
      const answer = await fetch(location.pathname, ask).catch(() => null);
      if (answer?.type === "opaqueredirect") return location.reload();
      lost(answer ? "Live updates have stopped." : "The Pi does not answer.");
    };
  }

  setInterval(() => {
    for (const element of live.querySelectorAll("[data-in]")) {
      const seconds = Math.max(0, element.dataset.in - 1);
      element.dataset.in = seconds;
      element.textContent = seconds ? `Tried again in ${seconds} s.` : "Tried again now.";
    }
  }, 1000);

  // A page that nobody sees needs no connection; browsers allow six to one host.
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  if (!document.hidden) open();
})();
