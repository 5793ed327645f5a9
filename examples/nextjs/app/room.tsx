"use client";

import { Markdown } from "coop/md.js";
import { useEffect, useLayoutEffect, useRef, useState, type FormEvent } from "react";
import { theCoop, useChanges, type Message, type Room } from "./coop";

export function RoomView({ room }: { room: Room }) {
  useChanges(room, "reset", "message", "text", "removed", "older", "pending", "settled", "turns", "typing", "members");
  const end = useRef<HTMLDivElement>(null);
  useEffect(() => {
    room.join();
    return () => room.leave();
  }, [room]);
  const length = room.messages.length + room.pending.length;
  useEffect(() => {
    end.current?.scrollIntoView();
    room.markRead();
  }, [room, length]);
  const members = [...room.members.values()].map(({ name }) => name).join(", ");
  return (
    <main className="room">
      <header>
        <h1>{room.name}</h1>
        <small>{members}</small>
      </header>
      <ol>
        {room.hasOlder && (
          <li>
            <button onClick={() => room.older()}>Older messages</button>
          </li>
        )}
        {room.messages.map((message) => (
          <Row key={message.id} room={room} message={message} />
        ))}
        {room.pending.map(({ clientId, text, state, error }) => (
          <li key={clientId} className="pending">
            {text} <small>{error ?? state}</small>
          </li>
        ))}
      </ol>
      <div ref={end} />
      <p className="typing">{room.typing.length > 0 && `${room.typing.join(", ")} typing …`}</p>
      <Composer room={room} />
    </main>
  );
}

function Row({ room, message }: { room: Room; message: Message }) {
  const { author, status, error } = message;
  const turn = room.turnOf(message.id);
  const mine = author.user === theCoop().user?.id;
  return (
    <li data-status={status} className={mine ? "mine" : undefined}>
      <strong>{author.name}</strong>
      <Text text={message.text} />
      {turn && <button onClick={() => room.stop(turn.id)}>Stop</button>}
      {["stopped", "failed", "interrupted"].includes(status) && (
        <p className="state">
          {error ?? status} <button onClick={() => room.retry(message.id)}>Try again</button>
        </p>
      )}
    </li>
  );
}

/** A text in Markdown that may grow: only its last block is made again. */
function Text({ text }: { text: string }) {
  const box = useRef<HTMLDivElement>(null);
  const shown = useRef<Markdown>(null);
  useLayoutEffect(() => {
    if (!box.current) return;
    shown.current ??= new Markdown(box.current);
    shown.current.show(text);
  }, [text]);
  return <div className="text" ref={box} />;
}

function Composer({ room }: { room: Room }) {
  const [text, setText] = useState("");
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (text.trim()) room.send(text);
    setText("");
  };
  return (
    <form onSubmit={submit}>
      <input
        aria-label="Message"
        placeholder="Message, or /bot and a question"
        value={text}
        onChange={(event) => {
          setText(event.target.value);
          room.isTyping();
        }}
      />
      <button type="submit">Send</button>
    </form>
  );
}
