"""A mail server that accepts every message and keeps none (RFC 5321, the commands curl needs).

Run as a program: `python smtp_responder.py ADDRESS PORT`. Standard library only.
"""

from __future__ import annotations

import asyncio
import sys

_REPLIES = {
    b"EHLO": b"250-mail.example greets you\r\n250 SIZE 1000000\r\n",
    b"HELO": b"250 mail.example greets you\r\n",
    b"MAIL": b"250 2.1.0 sender ok\r\n",
    b"RCPT": b"250 2.1.5 recipient ok\r\n",
    b"NOOP": b"250 2.0.0 ok\r\n",
    b"RSET": b"250 2.0.0 ok\r\n",
    b"DATA": b"354 end with <CRLF>.<CRLF>\r\n",
    b"QUIT": b"221 2.0.0 bye\r\n",
}


async def _session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        writer.write(b"220 mail.example ESMTP\r\n")
        verb = b""
        while verb != b"QUIT" and (line := await reader.readline()):
            verb = line[:4].upper().strip()
            writer.write(_REPLIES.get(verb, b"502 5.5.2 command not known\r\n"))
            if verb == b"DATA":
                await writer.drain()
                await reader.readuntil(b"\r\n.\r\n")
                writer.write(b"250 2.0.0 accepted\r\n")
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass  # the client went away: its business
    finally:
        writer.close()


async def _serve(address: str, port: int) -> None:
    server = await asyncio.start_server(_session, address, port)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2])))
