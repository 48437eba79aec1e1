-- What makes a request private: request, topic, device, or kinds of data found in it; separated by spaces, the data
-- itself is never among it. NULL until it is decided; then is_private says whether there is any.
ALTER TABLE requests ADD COLUMN private_by TEXT;
