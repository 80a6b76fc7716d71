// Light or dark: as the system has it until somebody says otherwise.
const theme = document.getElementById("theme");
const dark = matchMedia("(prefers-color-scheme: dark)");
const tell = () => {
  const chosen = document.documentElement.dataset.theme;
  theme.ariaPressed = String(chosen ? chosen === "dark" : dark.matches);
};
theme.addEventListener("click", () => {
  document.documentElement.dataset.theme = theme.ariaPressed === "true" ? "light" : "dark";
  tell();
});
dark.addEventListener("change", tell);
tell();
