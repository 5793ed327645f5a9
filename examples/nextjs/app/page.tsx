"use client";

import { useEffect, useState } from "react";
import { theCoop, useChanges } from "./coop";
import { RoomView } from "./room";
import { SignIn } from "./sign-in";

export default function Page() {
  // What is kept in the browser is not known where pages are made beforehand.
  const [isHere, setHere] = useState(false);
  useEffect(() => setHere(true), []);
  return isHere ? <Client /> : <main className="center">Loading …</main>;
}

function Client() {
  const coop = theCoop();
  const [isIn, setIn] = useState(coop.isSignedIn);
  useEffect(() => {
    if (isIn) coop.connect().catch(() => {});
    return coop.on("signedOut", () => setIn(false));
  }, [coop, isIn]);
  if (!isIn) return <SignIn onDone={() => setIn(true)} />;
  return (
    <Rooms
      onSignOut={() => {
        coop.signOut();
        setIn(false);
      }}
    />
  );
}

function Rooms({ onSignOut }: { onSignOut: () => void }) {
  const coop = theCoop();
  const [open, setOpen] = useState<number | null>(null);
  useChanges(coop, "rooms", "room", "state");
  const rooms = [...coop.rooms.values()].sort((a, b) => b.id - a.id);
  const room = open === null ? undefined : coop.rooms.get(open);
  const make = async () => {
    const name = prompt("What is the room called?");
    if (name) setOpen((await coop.createRoom({ name })).id);
  };
  return (
    <div className="page">
      <aside>
        <header>
          <strong>{coop.user?.name}</strong>
          <button onClick={make}>New room</button>
          <button onClick={onSignOut}>Sign out</button>
        </header>
        {coop.state !== "online" && <p role="status">No connection. What you write is kept.</p>}
        <nav>
          {rooms.map(({ id, name, unread }) => (
            <button key={id} aria-current={id === open} onClick={() => setOpen(id)}>
              {name} {unread > 0 && <b>{unread}</b>}
            </button>
          ))}
        </nav>
      </aside>
      {room ? <RoomView key={room.id} room={room} /> : <main className="center">Choose a room.</main>}
    </div>
  );
}
