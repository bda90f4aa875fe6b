// Gives a file to whoever looks, as a download of the browser.

/** How long the browser may take to have it written, before it is let go. */
const KEPT_MS = 60_000;

export function save({ name, content }: { name: string; content: Blob }): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), KEPT_MS);
}
