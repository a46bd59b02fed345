"""The process: event loop, health server, instance lock, inotify."""
