"use client";

// coop.js keeps what it is told and says when that changes; React has to be told to look again. That is all there is in between.

import { Coop, type Room } from "coop/coop.js";
import { useEffect, useReducer } from "react";

export type { Room };
export type Message = Room["messages"][number];

let one: Coop | undefined;

/** The server, as the one who is signed in here sees it. */
export function theCoop(): Coop {
  return (one ??= new Coop({ url: process.env.NEXT_PUBLIC_COOP_URL ?? "http://127.0.0.1:8000" }));
}

type Emitter = { on(name: string, listener: () => void): () => void };

/** Draws again whenever one of these happens. */
export function useChanges(of: Emitter, ...names: string[]): void {
  const [, again] = useReducer((count: number) => count + 1, 0);
  const list = names.join();
  useEffect(() => {
    const ends = list.split(",").map((name) => of.on(name, again));
    again();
    return () => ends.forEach((end) => end());
  }, [of, list]);
}
