"use client";

import { useState, type FormEvent } from "react";
import { theCoop } from "./coop";

export function SignIn({ onDone }: { onDone: () => void }) {
  const [wrong, setWrong] = useState("");
  const [isNew, setNew] = useState(false);
  const submit = async (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const field = (name: string) => String(new FormData(event.currentTarget).get(name) ?? "");
    const [name, email, password] = [field("name"), field("email"), field("password")];
    try {
      await (isNew ? theCoop().register(name, email, password) : theCoop().signIn(name, password));
      onDone();
    } catch (error) {
      setWrong(error instanceof Error ? error.message : String(error));
    }
  };
  return (
    <main className="center">
      <form className="card" onSubmit={submit}>
        <h1>{isNew ? "Create an account" : "Sign in"}</h1>
        <label>
          Name <input name="name" autoComplete="username" required autoFocus />
        </label>
        {isNew && (
          <label>
            E-mail <input name="email" type="email" required />
          </label>
        )}
        <label>
          Password <input name="password" type="password" autoComplete="current-password" required />
        </label>
        {wrong && <p role="alert">{wrong}</p>}
        <button type="submit">{isNew ? "Create account" : "Sign in"}</button>
        <button type="button" onClick={() => setNew(!isNew)}>
          {isNew ? "I have an account" : "Create an account"}
        </button>
      </form>
    </main>
  );
}
