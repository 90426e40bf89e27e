// Comfort only: every path works without it. No markup is made from text, so nothing that was typed can run.
"use strict";

for (const element of document.querySelectorAll("[data-script]")) element.hidden = false;

const focused = document.querySelector("[data-focus]");
if (focused) focused.focus();

// Photographs dropped anywhere, or the browser would open them in its place; how many were chosen,
// and which has which number: a refusal names the number alone, because the server looks at no name.
const drop = document.querySelector("[data-drop]");
if (drop) {
  const input = drop.querySelector("input");
  const output = drop.querySelector("output");
  const names = drop.querySelector("ol");
  const form = input.form;
  const filled = (text, count, size) => text.replace("{count}", count).replace("{size}", size);
  const show = () => {
    const files = Array.from(input.files);
    const bytes = files.reduce((sum, file) => sum + file.size, 0);
    const digits = { minimumFractionDigits: 1, maximumFractionDigits: 1, useGrouping: false };
    const size = (bytes / 1e6).toLocaleString(document.documentElement.lang, digits);
    const { one, many, tooMany, tooLarge, most, limit } = drop.dataset;
    let complaint = "";
    if (files.length > Number(most)) complaint = filled(tooMany, files.length, size);
    else if (bytes > Number(limit) * 1e6) complaint = filled(tooLarge, files.length, size);
    input.setCustomValidity(complaint);
    const chosen = files.length === 0 ? "" : filled(files.length === 1 ? one : many, files.length, size);
    output.textContent = complaint || chosen;
    names.replaceChildren(
      ...files.map((file) => {
        const line = document.createElement("li");
        line.textContent = file.name;
        return line;
      }),
    );
  };
  input.addEventListener("change", show);
  const holdsFiles = (event) => event.dataTransfer.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    drop.classList.add("over");
  });
  for (const name of ["dragleave", "drop"])
    document.addEventListener(name, () => drop.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    input.files = event.dataTransfer.files;
    show();
  });
}

// Why a long form would be refused now; empty: it would not. No browser gives back the photographs of a refused one.
const obstacleTo = async (form) => {
  try {
    const signal = AbortSignal.timeout(10000);
    const answer = await fetch(form.dataset.check, { redirect: "manual", cache: "no-store", signal });
    const refused = [401, 403].includes(answer.status); // by a proxy that signs people in
    if (refused || answer.type === "opaqueredirect") return form.dataset.ended;
    if (!answer.ok) return form.dataset.away;
    const session = await answer.json();
    if (session.reader !== form.dataset.reader)
      return form.dataset.other.replace("{reader}", () => session.reader);
    // Perhaps of a later session, begun in another tab.
    for (const field of document.querySelectorAll("[name=form_token]")) field.value = session.form_token;
    return "";
  } catch {
    return form.dataset.away;
  }
};
const tellUnsent = (form, obstacle) => {
  const line = form.querySelector(".unsent");
  const link = document.createElement("a");
  link.href = "/ui/login";
  link.target = "_blank";
  link.rel = "noopener";
  link.textContent = form.dataset.signIn;
  line.replaceChildren(obstacle, ...(obstacle === form.dataset.away ? [] : [" ", link]));
  line.focus(); // the button lost it when it was disabled
};

// A form that is on its way is not sent again. The server would do it once all the same.
for (const field of document.querySelectorAll("[name=form_id]")) {
  const form = field.form;
  const setSending = (sending) => {
    const buttons = form.querySelectorAll("[type=submit]:not([hidden])");
    for (const button of buttons) button.disabled = sending;
  };
  let isChecked = !("check" in form.dataset && AbortSignal.timeout); // an old browser sends it as it is
  form.addEventListener("submit", async (event) => {
    setSending(true);
    if (!isChecked) {
      event.preventDefault();
      form.querySelector(".unsent").replaceChildren();
      const obstacle = await obstacleTo(form);
      setSending(false);
      if (obstacle) return tellUnsent(form, obstacle);
      isChecked = true;
      form.requestSubmit();
      isChecked = false;
      return;
    }
    const status = form.querySelector(".sending");
    if (status) status.textContent = form.dataset.sending;
    setTimeout(() => setSending(false), 5000); // no event tells that somebody has stopped it
  });
  window.addEventListener("pageshow", () => setSending(false)); // also when a browser goes back to it
}

// The draft of the note, into the clipboard.
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const note = document.getElementById(button.dataset.copy);
    let copied = true;
    note.focus();
    note.select();
    try {
      await navigator.clipboard.writeText(note.value);
    } catch {
      copied = document.execCommand("copy"); // without TLS there is no clipboard to ask
    }
    if (copied) button.focus();
    const { copied: done, notCopied } = button.dataset;
    button.parentElement.querySelector("[role=status]").textContent = copied ? done : notCopied;
  });
}

// Whether the queue has changed, or can no longer be asked. It is told, and not moved under a reader's hands.
const changed = document.querySelector("[data-pulse]");
if (changed) {
  let told = "";
  const poll = async () => {
    let news = changed.dataset.stale;
    try {
      const signal = AbortSignal.timeout(10000);
      const answer = await fetch("/ui/pulse", { redirect: "error", cache: "no-store", signal });
      if (answer.ok) news = (await answer.text()) === changed.dataset.pulse ? "" : changed.dataset.changed;
    } catch {
      // the server is away, or the session has ended
    }
    if (news === told) return; // a screen reader would say it again
    told = news;
    const link = document.createElement("a");
    link.href = "/ui";
    link.textContent = changed.dataset.show;
    changed.replaceChildren(...(news ? [news, " ", link] : []));
  };
  setInterval(poll, 15000);
  window.addEventListener("pageshow", (event) => event.persisted && poll()); // as it was when it was left
}
