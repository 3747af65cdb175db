"""What keeps alerts: the file on disk, the way out through it, and the socket that answers for what is in it.

Announcer ──► Outbox ──► Journal (SQLite) ──► sink
                            ▲ ReplayServer: from number N on
"""
