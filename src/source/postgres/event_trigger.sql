-- Lets lakeward follow schema changes exactly; see docs/event-trigger.md. Optional.
--
-- Three event triggers write what a DDL statement did into the write-ahead log, in order with the rows around it: the
-- statement's text and how the table looks afterwards. Nothing else reads or changes anything, no table is written, and an
-- error in here is swallowed: the application's statement never fails because of it.
--
-- A superuser runs this once in the database (psql -f); running it again is harmless.
-- Remove it with: DROP SCHEMA lakeward CASCADE;

CREATE SCHEMA IF NOT EXISTS lakeward;

CREATE OR REPLACE FUNCTION lakeward.tell_ddl() RETURNS event_trigger LANGUAGE plpgsql
    -- Names and values as lakeward's own sessions print them, whatever the application has set.
    SET search_path = pg_catalog
    SET datestyle = 'ISO, MDY'
    SET intervalstyle = 'iso_8601'
    SET timezone = 'UTC'
    SET bytea_output = 'hex'
    SET extra_float_digits = '3'
    SET lc_monetary = 'C'
AS $function$
DECLARE
    affected oid[];
    dropped jsonb;
    tables jsonb;
    rewritten text := coalesce(current_setting('lakeward.rewritten', true), '');
BEGIN
    IF TG_EVENT = 'table_rewrite' THEN
        -- Remembered until the end of the statement, which tells it with the rest.
        PERFORM set_config('lakeward.rewritten', rewritten || ',' || pg_event_trigger_table_rewrite_oid(), true);
        RETURN;
    END IF;

    IF TG_EVENT = 'sql_drop' THEN
        SELECT jsonb_agg(jsonb_build_object('oid', d.objid::int8, 'schema', d.schema_name, 'table', d.object_name))
        INTO dropped
        FROM pg_event_trigger_dropped_objects() d
        WHERE d.object_type = 'table' AND NOT d.is_temporary;
        -- Columns that went with their type, for example; ALTER TABLE comes to its own end.
        SELECT array_agg(DISTINCT d.objid) INTO affected
        FROM pg_event_trigger_dropped_objects() d
        WHERE d.object_type = 'table column' AND TG_TAG <> 'ALTER TABLE';
    ELSE
        SELECT array_agg(DISTINCT d.objid) INTO affected
        FROM pg_event_trigger_ddl_commands() d
        WHERE d.classid = 'pg_class'::regclass AND d.object_type IN ('table', 'table column');
        IF rewritten <> '' THEN
            PERFORM set_config('lakeward.rewritten', '', true);
        END IF;
    END IF;
    IF affected IS NULL AND dropped IS NULL THEN
        RETURN;
    END IF;

    WITH RECURSIVE concerned(oid) AS (
        SELECT unnest(affected)
        UNION
        -- Tables that inherit are changed with their parent. Partitions are not told: they are part of their root.
        SELECT i.inhrelid FROM concerned JOIN pg_inherits i ON i.inhparent = concerned.oid
        JOIN pg_class parent ON parent.oid = i.inhparent WHERE parent.relkind = 'r'
    )
    SELECT jsonb_agg(jsonb_build_object(
        'oid', c.oid::int8, 'schema', n.nspname, 'table', c.relname, 'kind', c.relkind::text, 'width', c.relnatts,
        'identity', c.relreplident::text,
        'key', coalesce((
            SELECT jsonb_agg(a.attname ORDER BY k.place)
            FROM pg_index i
            CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
            WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate AND k.place <= i.indnkeyatts
                AND CASE c.relreplident
                    WHEN 'i' THEN i.indisreplident WHEN 'n' THEN false ELSE i.indisprimary END), '[]'),
        'files', coalesce((
            SELECT jsonb_object_agg(f.oid::int8, f.relfilenode::int8)
            FROM pg_class f
            WHERE f.oid = c.oid AND c.relkind = 'r' OR c.relkind = 'p'
                AND f.oid IN (SELECT relid FROM pg_partition_tree(c.oid) WHERE isleaf)), '{}'),
        'columns', coalesce((
            SELECT jsonb_agg(jsonb_build_object(
                'number', a.attnum, 'name', a.attname, 'type_oid', a.atttypid::int8, 'typmod', a.atttypmod,
                'declared', format_type(a.atttypid, a.atttypmod), 'dimensions', a.attndims,
                'generated', a.attgenerated <> '', 'has_default', a.atthasdef OR a.attidentity <> '',
                'missing', CASE WHEN c.relkind = 'p' THEN (
                        SELECT jsonb_agg(DISTINCT l.attmissingval::text)
                        FROM pg_partition_tree(c.oid) tree JOIN pg_attribute l ON l.attrelid = tree.relid
                        WHERE tree.isleaf AND tree.relid <> c.oid AND l.attname = a.attname AND l.attnum > 0)
                    ELSE jsonb_build_array(a.attmissingval::text) END
                ) ORDER BY a.attnum)
            FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]')))
    INTO tables
    FROM concerned JOIN pg_class c ON c.oid = concerned.oid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p';

    IF tables IS NOT NULL OR dropped IS NOT NULL THEN
        PERFORM pg_logical_emit_message(true, 'lakeward.ddl', jsonb_build_object(
            'version', 1, 'tag', TG_TAG, 'statement', left(current_query(), 65536),
            'tables', coalesce(tables, '[]'), 'dropped', coalesce(dropped, '[]'),
            'rewritten', to_jsonb(string_to_array(trim(leading ',' FROM rewritten), ',')::int8[]))::text);
        -- Logical decoding places a message where it ends, which is where the next row begins: both at the same place, and
        -- in the wrong order if one is in a subtransaction, as this function is. So something has to be between them.
        PERFORM pg_logical_emit_message(true, 'lakeward', '');
    END IF;
EXCEPTION WHEN OTHERS THEN
    RAISE NOTICE 'lakeward could not tell the log about this statement: %', SQLERRM;
END
$function$;

DROP EVENT TRIGGER IF EXISTS lakeward_ddl;
CREATE EVENT TRIGGER lakeward_ddl ON ddl_command_end
    WHEN TAG IN ('ALTER TABLE', 'CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO')
    EXECUTE FUNCTION lakeward.tell_ddl();

DROP EVENT TRIGGER IF EXISTS lakeward_drop;
CREATE EVENT TRIGGER lakeward_drop ON sql_drop EXECUTE FUNCTION lakeward.tell_ddl();

DROP EVENT TRIGGER IF EXISTS lakeward_rewrite;
CREATE EVENT TRIGGER lakeward_rewrite ON table_rewrite EXECUTE FUNCTION lakeward.tell_ddl();

ALTER EVENT TRIGGER lakeward_ddl ENABLE ALWAYS;
ALTER EVENT TRIGGER lakeward_drop ENABLE ALWAYS;
ALTER EVENT TRIGGER lakeward_rewrite ENABLE ALWAYS;
