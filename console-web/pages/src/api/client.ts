// Asks the node. Everything that is not a GET carries the session's token; a session that has ended is
// told to whoever listens, once, whichever question found it out.
import type { Problem, Why } from "./contract";

export class Failure extends Error {
  constructor(
    readonly why: Why | "network",
    text: string,
  ) {
    super(text);
  }
}

export const ROOT = "/api/v1";

export class Client {
  /** Of the session; empty before log-in. */
  csrf = "";
  ended: () => void = () => {};

  constructor(private readonly ask: typeof fetch = (...it) => fetch(...it)) {}

  /** What a page asks by itself, again and again, `watches`: that keeps no session alive. */
  get<T>(path: string, signal?: AbortSignal, watches = false): Promise<T> {
    return this.send<T>("GET", path, undefined, signal, watches);
  }

  post<T>(path: string, body?: unknown): Promise<T> {
    return this.send<T>("POST", path, body);
  }

  put<T>(path: string, body: unknown): Promise<T> {
    return this.send<T>("PUT", path, body);
  }

  patch<T>(path: string, body: unknown): Promise<T> {
    return this.send<T>("PATCH", path, body);
  }

  remove<T>(path: string): Promise<T> {
    return this.send<T>("DELETE", path);
  }

  /** A file with the name that the node gives it, however long it takes. A link would do with less, but where the
   *  node refuses, the browser says that the download was cancelled and nothing more. */
  async file(path: string): Promise<{ name: string; content: Blob }> {
    const answer = await this.asked("GET", path, undefined, new AbortController().signal, false);
    const name = /filename="([^"/\\]+)"/.exec(answer.headers.get("content-disposition") ?? "")?.[1] ?? "duolog";
    try {
      return { name, content: await answer.blob() };
    } catch (error) {
      throw new Failure("network", String(error));
    }
  }

  private async send<T>(method: string, path: string, body?: unknown, signal?: AbortSignal, watches = false): Promise<T> {
    const answer = await this.asked(method, path, body, signal, watches);
    return answer.status === 204 ? (undefined as T) : ((await answer.json()) as T);
  }

  /** The answer, where it is none that refuses. */
  private async asked(method: string, path: string, body: unknown, signal: AbortSignal | undefined, watches: boolean): Promise<Response> {
    const headers: Record<string, string> = { accept: "application/json" };
    if (watches) headers["duolog-watches"] = "true";
    if (method !== "GET") headers["duolog-csrf"] = this.csrf;
    if (body !== undefined) headers["content-type"] = "application/json";
    let answer: Response;
    try {
      answer = await this.ask(ROOT + path, {
        method,
        headers,
        body: body === undefined ? null : JSON.stringify(body),
        signal: signal ?? AbortSignal.timeout(30_000),
        credentials: "same-origin",
        cache: "no-store",
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Failure("network", String(error));
    }
    if (answer.ok) return answer;
    const problem = (await answer.json().catch(() => null)) as Problem | null;
    const why = problem?.why ?? "unavailable";
    if (why === "not_logged_in") this.ended();
    throw new Failure(why, problem?.text ?? `${answer.status}`);
  }
}

/** A path with a query of those of these that say something. */
export function query(path: string, these: Record<string, string | number | boolean | undefined>): string {
  const said = Object.entries(these).filter(([, it]) => it !== undefined && it !== "" && it !== false);
  return said.length === 0
    ? path
    : `${path}?${new URLSearchParams(said.map(([key, it]) => [key, String(it)])).toString()}`;
}
