// The mock by itself, for who works on the pages: npm run mock [-- PORT]
import { runnerImport } from "vite";

const { module } = await runnerImport("./mock/server.ts");
const mock = await module.serve(Number(process.argv[2] ?? 9453));
console.log(`${mock.url}  ann / correct horse, otto / battery staple, vera / only looking`);
