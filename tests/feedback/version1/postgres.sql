CREATE TABLE public.corrections (
    id integer NOT NULL,
    session character varying NOT NULL,
    source character varying NOT NULL,
    status character varying,
    proposed json NOT NULL,
    text json NOT NULL,
    "time" character varying NOT NULL,
    decided character varying,
    CONSTRAINT corrections_status_check CHECK (((status)::text = ANY ((ARRAY['proposed'::character varying, 'accepted'::character varying, 'edited'::character varying, 'rejected'::character varying])::text[])))
);
COMMENT ON COLUMN public.corrections.source IS 'user, sibling, or review for one that came reviewed';
COMMENT ON COLUMN public.corrections.text IS 'as it was accepted';
COMMENT ON COLUMN public.corrections."time" IS 'of the proposal';
COMMENT ON COLUMN public.corrections.decided IS 'when it was reviewed';
CREATE SEQUENCE public.corrections_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.corrections_id_seq OWNED BY public.corrections.id;
CREATE TABLE public.loraloop (
    version integer NOT NULL
);
CREATE SEQUENCE public.loraloop_version_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.loraloop_version_seq OWNED BY public.loraloop.version;
CREATE TABLE public.ratings (
    session character varying NOT NULL,
    kind character varying NOT NULL,
    stars integer NOT NULL,
    comment text NOT NULL,
    issues json NOT NULL,
    "time" character varying NOT NULL,
    CONSTRAINT ratings_kind_check CHECK (((kind)::text = ANY ((ARRAY['explicit'::character varying, 'implicit'::character varying])::text[]))),
    CONSTRAINT ratings_stars_check CHECK (((stars >= 1) AND (stars <= 5)))
);
COMMENT ON COLUMN public.ratings."time" IS 'ISO 8601, UTC';
CREATE TABLE public.sessions (
    id character varying NOT NULL,
    "time" character varying,
    asked character varying,
    answered character varying,
    role character varying,
    prompt json NOT NULL,
    answer json,
    iterations json,
    status character varying,
    duration double precision,
    first_token double precision,
    prompt_tokens integer,
    completion_tokens integer,
    retries integer NOT NULL
);
COMMENT ON COLUMN public.sessions."time" IS 'ISO 8601, UTC';
COMMENT ON COLUMN public.sessions.asked IS 'the model as the client named it';
COMMENT ON COLUMN public.sessions.answered IS 'base or an immutable version';
COMMENT ON COLUMN public.sessions.iterations IS 'of an imported session: screens and tool calls';
COMMENT ON COLUMN public.sessions.status IS 'ok, error, timeout or cancelled';
COMMENT ON COLUMN public.sessions.duration IS 'seconds';
COMMENT ON COLUMN public.sessions.first_token IS 'seconds';
ALTER TABLE ONLY public.corrections ALTER COLUMN id SET DEFAULT nextval('public.corrections_id_seq'::regclass);
ALTER TABLE ONLY public.loraloop ALTER COLUMN version SET DEFAULT nextval('public.loraloop_version_seq'::regclass);
INSERT INTO public.corrections VALUES (1, 's1', 'user', 'accepted', '"3 heads, 1 tail"', '"3 heads, 1 tail"', '2026-11-01T10:00:00.000+00:00', '2026-11-01T10:00:00.000+00:00');
INSERT INTO public.loraloop VALUES (1);
INSERT INTO public.ratings VALUES ('s1', 'implicit', 5, '', '[]', '2026-11-01T10:00:00.000+00:00');
INSERT INTO public.ratings VALUES ('s2', 'implicit', 1, '', '[]', '2026-11-01T10:00:00.000+00:00');
INSERT INTO public.ratings VALUES ('s1', 'explicit', 2, 'off by 10 px', '["ocr_confidence_low"]', '2026-11-01T10:00:00.000+00:00');
INSERT INTO public.sessions VALUES ('s1', '2026-11-01T09:00:00.000+00:00', 'agent:validator', 'ocr@7', 'validator', '[{"role": "system", "content": "Read the dial."}, {"role": "user", "content": "HHTT"}]', '"2 heads, 2 tails"', NULL, 'ok', 1, 0.25, 12, 16, 0);
INSERT INTO public.sessions VALUES ('s2', '2026-11-01T09:00:00.000+00:00', 'base', 'base', NULL, '"plain\u0000text"', '"2 heads, 2 tails"', NULL, 'error', 1, 0.25, 12, 16, 0);
SELECT pg_catalog.setval('public.corrections_id_seq', 1, true);
SELECT pg_catalog.setval('public.loraloop_version_seq', 1, false);
ALTER TABLE ONLY public.corrections
    ADD CONSTRAINT corrections_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.loraloop
    ADD CONSTRAINT loraloop_pkey PRIMARY KEY (version);
ALTER TABLE ONLY public.ratings
    ADD CONSTRAINT ratings_pkey PRIMARY KEY (session, kind);
ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT sessions_pkey PRIMARY KEY (id);
CREATE INDEX ix_corrections_session ON public.corrections USING btree (session);
CREATE INDEX ix_sessions_answered ON public.sessions USING btree (answered);
CREATE INDEX ix_sessions_time ON public.sessions USING btree ("time");
ALTER TABLE ONLY public.corrections
    ADD CONSTRAINT corrections_session_fkey FOREIGN KEY (session) REFERENCES public.sessions(id);
ALTER TABLE ONLY public.ratings
    ADD CONSTRAINT ratings_session_fkey FOREIGN KEY (session) REFERENCES public.sessions(id);
