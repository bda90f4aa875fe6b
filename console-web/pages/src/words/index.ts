// Which language: the one that was picked, else the first of the browser's that there is.
import { en, type Words } from "./en";
import { fr } from "./fr";
import { ja } from "./ja";

export type { Words };
export type Language = "en" | "fr" | "ja";
export const LANGUAGES: Record<Language, Words> = { en, fr, ja };

export function isLanguage(text: string | null | undefined): text is Language {
  return text != null && Object.hasOwn(LANGUAGES, text);
}

/** The language for somebody who picked `picked`, or nothing, and whose browser wants `wanted`. */
export function languageFor(picked: string | null, wanted: readonly string[]): Language {
  if (isLanguage(picked)) return picked;
  for (const tag of wanted) {
    const language = tag.toLowerCase().split("-")[0];
    if (isLanguage(language)) return language;
  }
  return "en";
}
