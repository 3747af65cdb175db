"""Keeps alerts: the journal on disk, the outbox that publishes through it, and the socket that replays from it.

Announcer ──► Outbox ──► Journal (SQLite) ──► sink
                            ▲ ReplayServer: from number N on
"""
