// Numbers, sizes, times and durations for people, in their language. Pure: what time it is comes in.
import type { Language } from "../words";

const SIZES: Record<Language, readonly string[]> = {
  en: ["B", "KiB", "MiB", "GiB", "TiB", "PiB"],
  fr: ["o", "Kio", "Mio", "Gio", "Tio", "Pio"],
  ja: ["B", "KiB", "MiB", "GiB", "TiB", "PiB"],
};
const UNITS: Record<Language, { d: string; h: string; m: string; s: string; gap: string }> = {
  en: { d: "d", h: "h", m: "min", s: "s", gap: " " },
  fr: { d: "j", h: "h", m: "min", s: "s", gap: " " },
  ja: { d: "日", h: "時間", m: "分", s: "秒", gap: "" },
};

export class Format {
  private readonly numbers: Intl.NumberFormat;
  private readonly short: Intl.NumberFormat;
  private readonly times: Intl.DateTimeFormat;
  private readonly moments: Intl.DateTimeFormat;
  private readonly days: Intl.DateTimeFormat;

  constructor(
    readonly language: Language,
    zone?: string,
  ) {
    // The browser's own region where it speaks the language, so that dates are as at home.
    const wanted = typeof navigator === "undefined" ? [] : navigator.languages;
    const locale = wanted.find((tag) => tag.toLowerCase().startsWith(language)) ?? language;
    this.numbers = new Intl.NumberFormat(locale, { maximumFractionDigits: 0 });
    this.short = new Intl.NumberFormat(locale, { maximumSignificantDigits: 3 });
    const time = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" } as const;
    this.times = new Intl.DateTimeFormat(locale, { ...time, timeZone: zone });
    const day = { year: "numeric", month: "short", day: "numeric" } as const;
    this.moments = new Intl.DateTimeFormat(locale, { ...day, ...time, timeZone: zone });
    this.days = new Intl.DateTimeFormat(locale, { ...day, timeZone: zone });
  }

  number(value: number): string {
    return Math.abs(value) < 100 ? this.short.format(value) : this.numbers.format(value);
  }

  /** A number of bytes: at most three digits and a unit, never rounded up to the next one. */
  bytes(count: number): string {
    let unit = 0;
    let scaled = count;
    while (scaled >= 1000 && unit + 1 < SIZES.en.length) {
      scaled /= 1024;
      unit += 1;
    }
    const digits = scaled < 10 && unit > 0 ? 10 : 1;
    return `${this.short.format(Math.floor(scaled * digits) / digits)}\u00a0${SIZES[this.language][unit]}`;
  }

  /** How long, from milliseconds: the two greatest units. */
  duration(ms: number): string {
    const { d, h, m, s, gap } = UNITS[this.language];
    const part = (value: number, unit: string) => `${this.numbers.format(value)}${gap && "\u00a0"}${unit}`;
    if (ms < 1000) return `${this.numbers.format(Math.max(0, ms))}\u00a0ms`;
    if (ms < 10_000) return `${this.short.format(Math.floor(ms / 100) / 10)}${gap && "\u00a0"}${s}`;
    const seconds = Math.floor(ms / 1000);
    const two = (a: number, unitA: string, b: number, unitB: string) =>
      b === 0 ? part(a, unitA) : `${part(a, unitA)}${gap}${part(b, unitB)}`;
    if (seconds < 60) return part(seconds, s);
    if (seconds < 3600) return two(Math.floor(seconds / 60), m, seconds % 60, s);
    if (seconds < 86_400) return two(Math.floor(seconds / 3600), h, Math.floor(seconds / 60) % 60, m);
    return two(Math.floor(seconds / 86_400), d, Math.floor(seconds / 3600) % 24, h);
  }

  /** An age that ticks: whole seconds from the first on. */
  age(ms: number): string {
    return this.duration(Math.max(1000, Math.floor(ms / 1000) * 1000)).replace(/[.,]0/, "");
  }

  /** How long a step of a commit took, from microseconds. */
  micro(us: number): string {
    if (us < 1000) return `${this.numbers.format(us)}\u00a0µs`;
    if (us < 1_000_000) return `${this.short.format(us / 1000)}\u00a0ms`;
    return `${this.short.format(us / 1_000_000)}\u00a0s`;
  }

  time(ms: number): string {
    return this.times.format(ms);
  }

  moment(ms: number): string {
    return this.moments.format(ms);
  }

  day(ms: number): string {
    return this.days.format(ms);
  }

  /** A position in the log, as the command line writes it. */
  lsn(position: number): string {
    const high = Math.floor(position / 2 ** 32);
    return `${high.toString(16).toUpperCase()}/${(position % 2 ** 32).toString(16).toUpperCase().padStart(8, "0")}`;
  }
}
