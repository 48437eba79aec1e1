-- Whose work the request is part of, as its sender said (W3C trace context); passed on with it.
ALTER TABLE requests ADD COLUMN traceparent TEXT;
