BEGIN TRANSACTION;
CREATE TABLE corrections (
	id INTEGER NOT NULL, 
	session VARCHAR NOT NULL, 
	source VARCHAR NOT NULL, 
	status VARCHAR CHECK (status IN ('proposed', 'accepted', 'edited', 'rejected')), 
	proposed JSON NOT NULL, 
	text JSON NOT NULL, 
	time VARCHAR NOT NULL, 
	decided VARCHAR, 
	PRIMARY KEY (id), 
	FOREIGN KEY(session) REFERENCES sessions (id)
);
INSERT INTO "corrections" VALUES(1,'s1','user','accepted','"3 heads, 1 tail"','"3 heads, 1 tail"','2026-11-01T10:00:00.000+00:00','2026-11-01T10:00:00.000+00:00');
CREATE TABLE loraloop (
	version INTEGER NOT NULL, 
	PRIMARY KEY (version)
);
INSERT INTO "loraloop" VALUES(1);
CREATE TABLE ratings (
	session VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL CHECK (kind IN ('explicit', 'implicit')), 
	stars INTEGER NOT NULL CHECK (stars BETWEEN 1 AND 5), 
	comment TEXT NOT NULL, 
	issues JSON NOT NULL, 
	time VARCHAR NOT NULL, 
	PRIMARY KEY (session, kind), 
	FOREIGN KEY(session) REFERENCES sessions (id)
);
INSERT INTO "ratings" VALUES('s1','implicit',5,'','[]','2026-11-01T10:00:00.000+00:00');
INSERT INTO "ratings" VALUES('s2','implicit',1,'','[]','2026-11-01T10:00:00.000+00:00');
INSERT INTO "ratings" VALUES('s1','explicit',2,'off by 10 px','["ocr_confidence_low"]','2026-11-01T10:00:00.000+00:00');
CREATE TABLE sessions (
	id VARCHAR NOT NULL, 
	time VARCHAR, 
	asked VARCHAR, 
	answered VARCHAR, 
	role VARCHAR, 
	prompt JSON NOT NULL, 
	answer JSON, 
	iterations JSON, 
	status VARCHAR, 
	duration FLOAT, 
	first_token FLOAT, 
	prompt_tokens INTEGER, 
	completion_tokens INTEGER, 
	retries INTEGER NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "sessions" VALUES('s1','2026-11-01T09:00:00.000+00:00','agent:validator','ocr@7','validator','[{"role": "system", "content": "Read the dial."}, {"role": "user", "content": "HHTT"}]','"2 heads, 2 tails"',NULL,'ok',1.0,0.25,12,16,0);
INSERT INTO "sessions" VALUES('s2','2026-11-01T09:00:00.000+00:00','base','base',NULL,'"plain\u0000text"','"2 heads, 2 tails"',NULL,'error',1.0,0.25,12,16,0);
CREATE INDEX ix_sessions_time ON sessions (time);
CREATE INDEX ix_sessions_answered ON sessions (answered);
CREATE INDEX ix_corrections_session ON corrections (session);
COMMIT;
