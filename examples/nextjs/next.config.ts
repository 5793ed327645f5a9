import type { NextConfig } from "next";
import { resolve } from "node:path";

const root = resolve(import.meta.dirname, "../..");

// coop.js lies in the server, outside of this folder.
const config: NextConfig = {
  turbopack: { root },
  outputFileTracingRoot: root,
};

export default config;
