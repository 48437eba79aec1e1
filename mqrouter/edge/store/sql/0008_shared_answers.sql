-- What is equal for requests that may have the same answer, where `queue.share_answers_s` is set.
ALTER TABLE requests ADD COLUMN share_key BLOB;
CREATE INDEX requests_shared ON requests (share_key, received_at_ms) WHERE state = 'pending' AND share_key IS NOT NULL;
