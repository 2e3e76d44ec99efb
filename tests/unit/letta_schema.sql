-- The tables of a Letta server's database that memfs meets, as alembic leaves them at revision
-- 1c28e167b74f (Letta 0.16.7): written from the catalogue of a migrated database, not from the ORM,
-- which differs (no primary key on blocks_agents and agents_tags).
CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
INSERT INTO alembic_version VALUES ('1c28e167b74f');

CREATE TABLE organizations (
    id varchar PRIMARY KEY, name varchar NOT NULL, privileged_tools boolean NOT NULL,
    created_at timestamptz, updated_at timestamptz DEFAULT now(),
    is_deleted boolean NOT NULL DEFAULT false, _created_by_id varchar, _last_updated_by_id varchar
);
CREATE TABLE users (
    id varchar PRIMARY KEY, name varchar NOT NULL,
    organization_id varchar NOT NULL REFERENCES organizations(id),
    created_at timestamptz, updated_at timestamptz DEFAULT now(),
    is_deleted boolean NOT NULL DEFAULT false, _created_by_id varchar, _last_updated_by_id varchar
);
INSERT INTO organizations(id, name, privileged_tools)
    VALUES ('org-00000000-0000-4000-8000-000000000000', 'default_org', false);
INSERT INTO users(id, name, organization_id)
    VALUES ('user-00000000-0000-4000-8000-000000000000', 'default_user',
            'org-00000000-0000-4000-8000-000000000000');

CREATE TABLE agents (
    id varchar PRIMARY KEY,
    organization_id varchar NOT NULL REFERENCES organizations(id),
    name varchar, description varchar, system varchar, agent_type varchar, timezone varchar,
    project_id varchar, template_id varchar, base_template_id varchar, entity_id varchar,
    deployment_id varchar, last_stop_reason varchar, _vector_db_namespace varchar,
    message_ids json, llm_config json, embedding_config json, metadata_ json, tool_rules json,
    response_format json, compaction_settings json,
    message_buffer_autoclear boolean NOT NULL,
    enable_sleeptime boolean, hidden boolean,
    last_run_duration_ms integer, max_files_open integer, per_file_view_window_char_limit integer,
    last_run_completion timestamptz,
    created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now(),
    is_deleted boolean NOT NULL DEFAULT false, _created_by_id varchar, _last_updated_by_id varchar
);
CREATE INDEX ix_agents_created_at ON agents (created_at, id);

CREATE TABLE agents_tags (
    agent_id varchar NOT NULL REFERENCES agents(id), tag varchar NOT NULL,
    CONSTRAINT unique_agent_tag UNIQUE (agent_id, tag)
);
CREATE INDEX ix_agents_tags_agent_id_tag ON agents_tags (agent_id, tag);
CREATE INDEX ix_agents_tags_tag_agent_id ON agents_tags (tag, agent_id);

CREATE TABLE block (
    id varchar CONSTRAINT block_pkey PRIMARY KEY,
    value varchar NOT NULL, "limit" integer NOT NULL, label varchar NOT NULL, description varchar,
    metadata_ json, read_only boolean NOT NULL, is_template boolean NOT NULL,
    preserve_on_migration boolean, template_name varchar, hidden boolean,
    organization_id varchar NOT NULL
        CONSTRAINT block_organization_id_fkey REFERENCES organizations(id),
    project_id varchar, entity_id varchar, base_template_id varchar, template_id varchar,
    deployment_id varchar, current_history_entry_id varchar,
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now(),
    is_deleted boolean NOT NULL DEFAULT false, _created_by_id varchar, _last_updated_by_id varchar,
    CONSTRAINT unique_block_id_label UNIQUE (id, label)
);
CREATE INDEX created_at_label_idx ON block (created_at, label);
CREATE INDEX ix_block_current_history_entry_id ON block (current_history_entry_id);
CREATE INDEX ix_block_hidden ON block (hidden);
CREATE INDEX ix_block_is_template ON block (is_template);
CREATE INDEX ix_block_org_project_template ON block (organization_id, project_id, is_template);
CREATE INDEX ix_block_organization_id_deployment_id ON block (organization_id, deployment_id);

CREATE TABLE block_history (
    id varchar CONSTRAINT block_history_pkey PRIMARY KEY,
    block_id varchar NOT NULL REFERENCES block(id) ON DELETE CASCADE,
    sequence_number integer NOT NULL, label varchar NOT NULL, value text NOT NULL,
    "limit" bigint NOT NULL, description text, metadata_ json, actor_type varchar, actor_id varchar,
    organization_id varchar NOT NULL REFERENCES organizations(id),
    created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now(),
    is_deleted boolean NOT NULL DEFAULT false, _created_by_id varchar, _last_updated_by_id varchar
);
CREATE UNIQUE INDEX ix_block_history_block_id_sequence ON block_history (block_id, sequence_number);
ALTER TABLE block ADD CONSTRAINT fk_block_current_history_entry
    FOREIGN KEY (current_history_entry_id) REFERENCES block_history(id);

CREATE TABLE blocks_agents (
    agent_id varchar NOT NULL
        CONSTRAINT blocks_agents_agent_id_fkey REFERENCES agents(id) ON DELETE CASCADE,
    block_id varchar NOT NULL, block_label varchar NOT NULL,
    CONSTRAINT unique_label_per_agent UNIQUE (agent_id, block_label),
    CONSTRAINT unique_agent_block UNIQUE (agent_id, block_id),
    CONSTRAINT fk_block_id_label FOREIGN KEY (block_id, block_label) REFERENCES block(id, label)
        ON UPDATE CASCADE ON DELETE CASCADE DEFERRABLE INITIALLY IMMEDIATE
);
CREATE INDEX ix_blocks_agents_block_id ON blocks_agents (block_id);
CREATE INDEX ix_blocks_agents_block_label_agent_id ON blocks_agents (block_label, agent_id);

CREATE TABLE conversations (id varchar PRIMARY KEY);
CREATE TABLE blocks_conversations (
    conversation_id varchar NOT NULL REFERENCES conversations(id) ON DELETE CASCADE,
    block_id varchar NOT NULL REFERENCES block(id) ON DELETE CASCADE,
    block_label varchar NOT NULL,
    PRIMARY KEY (conversation_id, block_id, block_label)
);

CREATE TABLE groups_blocks (
    group_id varchar NOT NULL, block_id varchar NOT NULL REFERENCES block(id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, block_id)
);
CREATE TABLE identities_blocks (
    identity_id varchar NOT NULL, block_id varchar NOT NULL REFERENCES block(id) ON DELETE CASCADE,
    PRIMARY KEY (identity_id, block_id)
);

CREATE TABLE blocks_tags (
    block_id varchar NOT NULL CONSTRAINT blocks_tags_block_id_fkey REFERENCES block(id),
    tag varchar NOT NULL,
    organization_id varchar NOT NULL
        CONSTRAINT blocks_tags_organization_id_fkey REFERENCES organizations(id),
    created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now(),
    is_deleted boolean NOT NULL DEFAULT false, _created_by_id varchar, _last_updated_by_id varchar,
    CONSTRAINT unique_block_tag PRIMARY KEY (block_id, tag)
);
