// The start: the moving pair, and example photos.
import { $, h } from "./dom.js";

const EXAMPLES = {
  temple: "A pagoda above a lake", camera: "A man with a camera", astronaut: "An astronaut",
  raccoon: "A raccoon", coffee: "A cup of coffee", hopper: "An admiral",
};

// add(files): adds photos to the album.
export function begin(add) {
  const demo = $("demo");
  const slider = demo.querySelector("input");
  const still = (on) => {
    demo.classList.toggle("still", on);
    $("demo-pause").textContent = on ? "Play" : "Pause";
  };
  slider.addEventListener("input", () => {
    still(true);
    demo.style.setProperty("--at", `${slider.value}%`);
  });
  $("demo-pause").addEventListener("click", () => {
    still(!demo.classList.contains("still"));
    demo.style.removeProperty("--at");
  });
  still(matchMedia("(prefers-reduced-motion: reduce)").matches);
  $("examples").append(...Object.entries(EXAMPLES).map(([name, title]) => h("li", {},
    h("button", { type: "button", "aria-label": `Colour the example: ${title}`, onclick: () => example(name, add) },
      h("img", { src: `examples/${name}.jpg`, alt: "", height: 132, loading: "lazy" }), h("span", {}, title)))));
}

async function example(name, add) {
  const blob = await (await fetch(`examples/${name}.jpg`)).blob();
  add([new File([blob], `${name}.jpg`, { type: blob.type })]);
}
