// What VS Code's Jupyter extension does for a cell's output: its widget manager, given a kernel, shows the widget in a node.
import { KernelManager, ServerConnection } from '@jupyterlab/services';

window.run = async (token, code, node) => {
    const baseUrl = location.origin + '/', wsUrl = baseUrl.replace('http', 'ws');
    const serverSettings = ServerConnection.makeSettings({ baseUrl, wsUrl, token, appendToken: true });
    const kernel = await new KernelManager({ serverSettings }).startNew({ name: 'python3' });
    const wrong = window.wrong = [];
    const scripts = {      // modules that the manager does not have itself come from the kernel's nbextensions, as AMD
        widgetsRegisteredInRequireJs: new Set(),
        loadWidgetScript: async name => window.requirejs.config({ paths: { [name]: `nbextensions/${name}/index` } }),
        successHandler: () => {},
        errorHandler: (cls, name, version, error) => wrong.push(`${name} ${version} ${cls}: ${error}`),
    };
    const manager = new window.vscIPyWidgets.WidgetManager(kernel, node, scripts, () => {});
    const future = kernel.requestExecute({ code });
    future.onIOPub = async ({ header, content }) => {
        if (header.msg_type === 'error') wrong.push(content.traceback.join('\n'));
        const id = content.data?.['application/vnd.jupyter.widget-view+json']?.model_id;
        if (id) await manager.display_view(undefined, await manager.create_view(await manager.get_model(id)), { node });
    };
    await future.done;
};
