"use strict";
(() => {
  const percent = (weight) => `${Math.round(100 * weight)}\u00a0%`;

  const element = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };

  const weighted = (made, weight) => {
    made.style.setProperty("--w", weight);
    return made;
  };

  /* Moves with the arrow keys over `count` places, `across` of them to a line. */
  const moved = (key, place, count, across) => {
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across };
    if (key === "Home") return 0;
    if (key === "End") return count - 1;
    if (!(key in steps)) return null;
    const next = place + steps[key];
    return next < 0 || next >= count ? place : next;
  };

  /* The attention of one variant on a sentence: what the chosen word reads, and the whole map with a button a row. */
  const wordPanel = (data, pick) => {
    const { source, target, weights } = data;
    const reads = element("ol", { className: "reads" });
    const grid = element("div", { className: "grid" });
    grid.setAttribute("role", "toolbar");
    grid.setAttribute("aria-orientation", "vertical");
    grid.setAttribute("aria-label", `output of ${data.variant}`);
    grid.style.gridTemplateColumns = `max-content repeat(${source.length}, minmax(1.05rem, 1.6rem))`;
    grid.append(element("span"));
    for (const token of source) {
      const label = element("span", { className: "over", textContent: token, title: token });
      label.setAttribute("aria-hidden", "true");
      grid.append(label);
    }
    const buttons = [];
    const rows = target.map((token, row) => {
      const button = element("button", { type: "button", className: "word", textContent: token, title: token, tabIndex: -1 });
      button.dataset.row = row;
      buttons.push(button);
      const cells = weights[row].map((weight) => {
        const cell = weighted(element("div", { className: "cell" }), weight);
        cell.dataset.row = row;
        return cell;
      });
      grid.append(button, ...cells);
      return cells;
    });
    buttons[0].tabIndex = 0;

    const rowOf = (event) => event.target.dataset && event.target.dataset.row;
    for (const kind of ["pointerover", "click", "focusin"]) {
      grid.addEventListener(kind, (event) => {
        const row = rowOf(event);
        if (row !== undefined) pick(data.variant, Number(row));
      });
    }
    grid.addEventListener("keydown", (event) => {
      const row = rowOf(event);
      if (row === undefined) return;
      const next = moved(event.key, Number(row), target.length, 1);
      if (next === null) return;
      event.preventDefault();
      buttons[next].focus();
    });

    const show = (row) => {
      rows.forEach((cells, other) => {
        buttons[other].setAttribute("aria-pressed", String(other === row));
        cells.forEach((cell) => cell.classList.toggle("chosen", other === row));
      });
      if (row >= 0) buttons.forEach((button, other) => { button.tabIndex = other === row ? 0 : -1; });
      reads.replaceChildren(...source.map((token, place) => {
        const weight = row < 0 ? 0 : weights[row][place];
        const small = element("small", { textContent: weight >= 0.05 ? percent(weight) : "" });
        return weighted(element("li", { className: weight >= 0.05 ? "heavy" : "" }, token, small), weight);
      }));
    };
    const map = element("div", { className: "map" }, grid);
    const box = element("section", { className: "panel" }, element("h4", { textContent: data.variant }), reads, map);
    box.setAttribute("aria-label", data.variant);
    return { data, box, show, find: (word, row) => nearest(target, word, row) };
  };

  /* Where a word is said again, as near to a place as it comes; -1 where it is not. */
  const nearest = (target, word, row) => {
    const places = target.map((token, place) => (token === word ? place : -1)).filter((place) => place >= 0);
    return places.length ? places.reduce((a, b) => (Math.abs(b - row) < Math.abs(a - row) ? b : a)) : -1;
  };

  /* The attention of one variant on an image: bright is heavy; the arrow keys move over the patches. */
  const imagePanel = (data, image, title, pick) => {
    const across = data.weights[0].length;
    const flat = data.weights.flat();
    const most = Math.max(...flat) || 1;
    const veil = element("div", { className: "veil" });
    veil.style.gridTemplateColumns = `repeat(${across}, 1fr)`;
    veil.style.gridTemplateRows = `repeat(${data.weights.length}, 1fr)`;
    const cells = flat.map((weight, place) => {
      const cell = weighted(element("div"), weight / most);
      cell.dataset.place = place;
      return cell;
    });
    veil.append(...cells);
    const picture = element("div", { className: "picture", tabIndex: 0 }, element("img", { src: image, alt: "" }), veil);
    picture.setAttribute("role", "application");
    picture.setAttribute("aria-label", `attention of ${data.variant} on ${title}; move with the arrow keys`);
    let place = flat.indexOf(Math.max(...flat));
    for (const kind of ["pointerover", "click"]) {
      veil.addEventListener(kind, (event) => {
        if (event.target.dataset.place !== undefined) pick(data.variant, Number(event.target.dataset.place));
      });
    }
    picture.addEventListener("focus", () => pick(data.variant, place));
    picture.addEventListener("keydown", (event) => {
      const next = moved(event.key, place, flat.length, across);
      if (next === null) return;
      event.preventDefault();
      pick(data.variant, next);
    });
    const note = element("p", { className: "example-note" });
    const show = (chosen) => {
      place = chosen;
      cells.forEach((cell, other) => cell.classList.toggle("chosen", other === chosen));
      note.textContent = `row ${Math.floor(chosen / across) + 1}, column ${chosen % across + 1}: ${percent(flat[chosen])}`;
    };
    const box = element("section", { className: "panel" }, element("h4", { textContent: data.variant }), picture, note);
    box.setAttribute("aria-label", data.variant);
    return { data, box, show, across, flat };
  };

  const build = (root, examples) => {
    const select = root.querySelector("select");
    const live = root.querySelector(".live");
    const holder = root.querySelector(".panels");
    let panels = [];

    const pickWord = (variant, row) => {
      const origin = panels.find((panel) => panel.data.variant === variant);
      const { source, target, weights } = origin.data;
      for (const panel of panels) panel.show(panel === origin ? row : panel.find(target[row], row));
      const heavy = source.map((token, place) => [token, weights[row][place]]).filter(([, weight]) => weight >= 0.05);
      heavy.sort((a, b) => b[1] - a[1]);
      const list = heavy.slice(0, 4).map(([token, weight]) => `“${token}” ${percent(weight)}`).join(", ");
      const silent = panels.filter((panel) => panel.find(target[row], row) < 0).map((panel) => panel.data.variant);
      live.textContent = `${variant}: “${target[row]}” reads ${list || "every word a little"}.`
        + (silent.length ? ` Not said by ${silent.join(", ")}.` : "");
    };

    const pickPatch = (variant, place) => {
      const origin = panels.find((panel) => panel.data.variant === variant);
      for (const panel of panels) if (place < panel.flat.length) panel.show(place);
      const row = Math.floor(place / origin.across) + 1;
      live.textContent = `${variant}: row ${row}, column ${place % origin.across + 1} has ${percent(origin.flat[place])}.`;
    };

    /* As many panels to a row as fit, and rows as even as that allows. */
    const arrange = () => {
      const widest = Math.max(...panels.map((panel) => panel.data.weights[0].length));
      const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
      const least = rem * (panels[0].flat ? 15 : Math.min(40, 6 + 1.15 * widest));
      const fit = Math.max(1, Math.floor(holder.clientWidth / least));
      holder.style.setProperty("--across", Math.ceil(panels.length / Math.ceil(panels.length / fit)));
    };

    const show = (number) => {
      const example = examples[number];
      select.value = String(number);
      panels = example.panels.map((data) => (example.image
        ? imagePanel(data, example.image, example.title, pickPatch)
        : wordPanel(data, pickWord)));
      holder.replaceChildren(...panels.map((panel) => panel.box));
      arrange();
      const first = panels[0];
      if (example.image) pickPatch(first.data.variant, first.flat.indexOf(Math.max(...first.flat)));
      else pickWord(first.data.variant, 0);
    };

    examples.forEach((example, number) => {
      select.append(element("option", { value: String(number), textContent: `${number + 1}. ${example.title}` }));
    });
    select.addEventListener("change", () => show(Number(select.value)));
    for (const button of root.querySelectorAll("[data-step]")) {
      button.addEventListener("click", () => {
        show((Number(select.value) + Number(button.dataset.step) + examples.length) % examples.length);
      });
    }
    new ResizeObserver(arrange).observe(holder);
    root.querySelector(".controls").hidden = examples.length < 2;
    show(0);
  };

  const sets = JSON.parse(document.getElementById("attention-data").textContent);
  for (const root of document.querySelectorAll(".explorer")) build(root, sets[Number(root.dataset.set)]);
})();
