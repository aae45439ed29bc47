// What a dashboard's file may hold: the types of Grafana, put together for the kinds of panels that ours have.
// tests/test_dashboard_schema.py compiles each dashboard against `Board`.
import type * as common from '@grafana/schema';
import type * as raw from '@grafana/schema/dist/types/raw/dashboard/x/dashboard_types.gen.d.ts';
import type * as logs from '@grafana/schema/dist/types/raw/composable/logs/panelcfg/x/LogsPanelCfg_types.gen.d.ts';
import type * as loki from '@grafana/schema/dist/types/raw/composable/loki/dataquery/x/LokiDataQuery_types.gen.d.ts';
import type * as stat from '@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen.d.ts';
import type * as states from '@grafana/schema/dist/types/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen.d.ts';
import type * as table from '@grafana/schema/dist/types/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen.d.ts';
import type * as series from '@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen.d.ts';

// A string of JSON is no member of an enum, though it is the value of one.
type Text<T extends string> = string extends T ? T : `${T}`;
type Plain<T> = 0 extends 1 & T ? T
  : T extends string ? Text<T>
  : T extends number | boolean | null | undefined ? T
  : T extends (infer Item)[] ? Plain<Item>[]
  : T extends object ? { [Key in keyof T]: Plain<T[Key]> }
  : T;

type Source<Kind extends string> = { type: Kind; uid: Kind };
type Link = { title: string; url: string };

// The schema leaves these to the data sources' plugins: fields as Grafana's documentation of them has.
type Prometheus = {
  datasource: Source<'prometheus'>;
  refId: string;
  expr: string;
  legendFormat: string;
  range: boolean;
  instant?: boolean;
  exemplar?: boolean;
  format?: 'time_series' | 'table';
};
type Jaeger = { datasource: Source<'jaeger'>; refId: string } & (
  | { query: string }
  | { queryType: 'search'; service: string; tags: string; limit: number }
);
type Loki = Plain<Omit<loki.LokiDataQuery, 'datasource'>> & {
  datasource: Source<'loki'>;
  direction: `${loki.LokiQueryDirection}`;
};

// Properties of an override are free in the schema: these are what ours set.
type Property =
  | { id: 'color'; value: Plain<raw.FieldColor> }
  | { id: 'links'; value: Link[] }
  | { id: 'unit'; value: string }
  | { id: 'decimals'; value: number }
  | { id: 'thresholds'; value: Plain<raw.ThresholdsConfig> }
  | { id: 'custom.cellOptions'; value: Plain<common.TableCellOptions> };
type Override = { matcher: { id: 'byName' | 'byRegexp'; options: string }; properties: Property[] };

// As for the schema, whose options of a transformation are unknown.
type Transformation =
  | { id: 'merge'; options: Record<string, never> }
  | { id: 'extractFields'; options: { source: string; replace: boolean } }
  | {
      id: 'organize';
      options: {
        excludeByName: Record<string, boolean>;
        includeByName: Record<string, boolean>;
        indexByName: Record<string, number>;
        renameByName: Record<string, string>;
      };
    };

type Kind<Name extends string, Options, Custom, Query> = Plain<
  Omit<raw.Panel, 'type' | 'options' | 'fieldConfig' | 'targets' | 'transformations' | 'datasource'>
> & {
  type: Name;
  description: string;
  datasource: Source<'prometheus' | 'loki' | 'jaeger'>;
  options: Plain<Options>;
  fieldConfig: {
    defaults: Plain<Omit<raw.FieldConfig, 'custom' | 'links'>> & { custom?: Plain<Custom>; links?: Link[] };
    overrides: Override[];
  };
  targets: Query[];
  transformations?: Transformation[];
};
type Nothing = Record<string, never>;

type Panel =
  | Plain<raw.RowPanel>
  | Kind<'timeseries', series.Options, series.FieldConfig, Prometheus>
  | Kind<'stat', stat.Options, Nothing, Prometheus>
  | Kind<'state-timeline', states.Options, states.FieldConfig, Prometheus>
  | Kind<'table', table.Options, table.FieldConfig, Prometheus | Loki | Jaeger>
  | Kind<'logs', logs.Options, Nothing, Loki>
  | Kind<'traces', Nothing, Nothing, Jaeger>;

type Variable = Plain<Omit<raw.VariableModel, 'query' | 'type'>> & (
  | { type: 'query'; query: { query: string; refId: string; qryType: number } }
  | { type: 'textbox'; query: string }
);

type Annotation = Plain<Omit<raw.AnnotationQuery, 'target' | 'datasource'>> & {
  datasource: Source<'prometheus'>;
  target: { refId: string; expr: string };
  titleFormat: string;
  useValueForTime: boolean;
};

export type Board = Plain<Omit<raw.Dashboard, 'panels' | 'templating' | 'annotations'>> & {
  annotations: { list: Annotation[] };
  panels: Panel[];
  templating: { list: Variable[] };
};
