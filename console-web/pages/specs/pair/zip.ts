// Reads a ZIP as `duolog snapshot` writes it: deflated or stored files, no encryption, below 4 GiB.
import { inflateRawSync } from "node:zlib";

/** The files in it, by name. */
export function unzip(bytes: Buffer): Map<string, Buffer> {
  const end = bytes.lastIndexOf(Buffer.from("PK\u0005\u0006"));
  if (end < 0) throw new Error("no ZIP");
  const files = new Map<string, Buffer>();
  let at = bytes.readUInt32LE(end + 16);
  for (let left = bytes.readUInt16LE(end + 10); left > 0; left -= 1) {
    const [how, packed, nameLength, extra, comment, local] =
      [bytes.readUInt16LE(at + 10), bytes.readUInt32LE(at + 20), bytes.readUInt16LE(at + 28), bytes.readUInt16LE(at + 30), bytes.readUInt16LE(at + 32), bytes.readUInt32LE(at + 42)];
    const name = bytes.subarray(at + 46, at + 46 + nameLength).toString();
    const from = local + 30 + bytes.readUInt16LE(local + 26) + bytes.readUInt16LE(local + 28);
    const content = bytes.subarray(from, from + packed);
    files.set(name, how === 8 ? inflateRawSync(content) : Buffer.from(content));
    at += 46 + nameLength + extra + comment;
  }
  return files;
}
