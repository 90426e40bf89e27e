// Comfort only: every path works without it. No markup is made from text, so nothing that was typed can run.
"use strict";

for (const element of document.querySelectorAll("[data-script]")) element.hidden = false;

const focused = document.querySelector("[data-focus]");
if (focused) focused.focus();

// Photographs dropped, how many were chosen, and which has which number: a refusal names the number alone, because
// the server looks at no name.
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
  for (const name of ["dragenter", "dragover"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length > 0) {
      input.files = event.dataTransfer.files;
      show();
    }
  });
  form.addEventListener("submit", () => {
    form.querySelector(".sending").textContent = form.dataset.sending;
  });
}

// A form that is on its way is not sent again. The server would do it once all the same.
for (const field of document.querySelectorAll("[name=form_id]")) {
  const setSending = (sending) => {
    for (const button of field.form.querySelectorAll("[type=submit]")) button.disabled = sending;
  };
  field.form.addEventListener("submit", () => {
    setSending(true);
    setTimeout(() => setSending(false), 5000); // no event tells that somebody has stopped it
  });
  window.addEventListener("pageshow", () => setSending(false)); // also when a browser goes back to it
}

// The draft of the note, into the clipboard.
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const note = document.getElementById(button.dataset.copy);
    note.focus();
    note.select();
    try {
      await navigator.clipboard.writeText(note.value);
    } catch {
      document.execCommand("copy"); // without TLS there is no clipboard to ask
    }
    button.focus();
    button.parentElement.querySelector("[role=status]").textContent = button.dataset.copied;
  });
}

// Whether the queue has changed. It is told, and not moved under a reader's hands.
const changed = document.querySelector("[data-pulse]");
if (changed) {
  const poll = async () => {
    try {
      const answer = await fetch("/ui/pulse", { redirect: "error", cache: "no-store" });
      if (answer.ok && (await answer.text()) !== changed.dataset.pulse && !changed.hasChildNodes()) {
        const link = document.createElement("a");
        link.href = "/ui";
        link.textContent = changed.dataset.show;
        changed.append(changed.dataset.changed, " ", link);
      }
    } catch {
      // the server is away, or the session has ended: the next page will say so
    }
  };
  setInterval(poll, 15000);
}
