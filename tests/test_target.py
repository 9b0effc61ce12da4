"""Whom a config may call: hostile targets, allowed ones, honest homes; and stand-ins that say what
the real classes say."""
import functools
import importlib
import inspect
import json
import logging
import os
import pkgutil
import subprocess
import sys
import types
import typing
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from torch import nn

from fixtures import ALL
from mlkit.config.load import load_config
from mlkit.config.node import ConfigError
from mlkit.parts.build import build
from mlkit.parts.check import find_problems
from mlkit.parts.locate import locate, register
from mlkit.parts.outline import outline
from mlkit.parts.signature import produces, signature
from mlkit.parts.trust import TargetError, Trust, Untrusted, homes
from notebooks import without_recipes
from shell import command

ROOT = Path(__file__).parents[1]
MNIST = str(ROOT / "configs" / "mnist.yaml")


def python(code: str, *args, cwd=ROOT, ok: bool = True, **env) -> subprocess.CompletedProcess:
    "Run code in a fresh process."
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, *map(str, args)], cwd=cwd,
                          capture_output=True, text=True,
                          env={**os.environ, **{k: str(v) for k, v in env.items()}}, timeout=300)
    assert done.returncode == 0 or not ok, done.stdout + done.stderr
    return done


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# -- hostile targets. Each would leave the file MARK behind, or be heard by the audit hook, if it
# were called.

SHELL, CODE = "touch MARK", "open('MARK', 'w')"
HOSTILE = {  # target -> the arguments it is given
    "os.system": [SHELL], "posix.system": [SHELL], "os.popen": [SHELL],
    "os.execvp": ["touch", ["touch", "MARK"]], "os.posix_spawnp": ["touch", ["touch", "MARK"], {}],
    "os.remove": ["KEEP"], "os.putenv": ["PATH", "/"], "os.kill": [0, 15], "builtins.eval": [CODE],
    "builtins.exec": [CODE], "builtins.compile": [CODE, "x", "exec"],
    "builtins.open": ["MARK", "w"], "builtins.__import__": ["antigravity"],
    "builtins.getattr": [{}, "get"], "builtins.vars": [], "builtins.type": ["T", [], {}],
    "builtins.dict": [], "datetime.timedelta": [1], "getattr": [{}, "get"], "eval": [CODE],
    "subprocess.run": [["touch", "MARK"]], "subprocess.Popen": [["touch", "MARK"]],
    "subprocess.getoutput": [SHELL], "shutil.rmtree": ["KEPT"], "shutil.copyfile": ["KEEP", "MARK"],
    "shutil.os.system": [SHELL], "pathlib.Path.write_text": ["MARK", "x"],
    "logging.os.system": [SHELL], "logging.FileHandler": ["MARK"],
    "logging.config.dictConfig": [{}], "logging.sys.modules.clear": [], "code.interact": [],
    "code.InteractiveInterpreter": [], "runpy.run_path": ["evil.py"], "runpy.run_module": ["evil"],
    "pdb.Pdb._getval": [None, CODE], "pdb.run": [CODE], "bdb.Bdb.run": [None, CODE],
    "timeit.timeit": [CODE], "profile.run": [CODE], "trace.Trace": [], "cProfile.run": [CODE],
    "doctest.testfile": ["evil.py"], "antigravity.fly_genie": [], "this.s": [],
    "importlib.import_module": ["evil"], "importlib.reload": [None],
    "imp.load_source": ["evil", "evil.py"], "pkgutil.resolve_name": ["os:system"],
    "pydoc.locate": ["evil"], "pydoc.pipepager": ["", SHELL], "ctypes.CDLL": ["libc.so.6"],
    "ctypes.cdll.LoadLibrary": ["libc.so.6"], "pickle.loads": ["cos\nsystem\n(S'touch MARK'\ntR."],
    "pickle.load": [None], "_pickle.loads": [""], "marshal.loads": [""], "shelve.open": ["MARK"],
    "dbm.open": ["MARK", "c"], "sqlite3.connect": ["MARK"], "numpy.load": ["evil.npy", None, True],
    "numpy.fromfile": ["KEEP"], "numpy.save": ["MARK", [1]], "numpy.f2py.compile": [CODE],
    "numpy.ctypeslib.load_library": ["x", "."], "numpy.ndarray.tofile": [None, "MARK"],
    "numpy.testing.rundocs": ["evil.py"], "numpy.torch.nn.Identity": [],
    "pandas.read_pickle": ["evil.pkl"], "pandas.eval": ["@__import__('os').system('touch MARK')"],
    "pandas.DataFrame.to_csv": [None, "MARK"],
    "yaml.unsafe_load": ["!!python/object/apply:os.system ['touch MARK']"],
    "yaml.load": ["1", None], "omegaconf.OmegaConf.load": ["x"], "operator.attrgetter": ["x"],
    "operator.methodcaller": ["system", SHELL], "functools.partial": ["print"],
    "functools.reduce": [], "types.FunctionType": [None, {}], "types.CodeType": [],
    "webbrowser.open": ["file:///"], "webbrowser.GenericBrowser": ["touch"], "socket.socket": [],
    "socket.create_connection": [["127.0.0.1", 9]], "http.server.HTTPServer": [["", 0], None],
    "urllib.request.urlopen": ["file:///etc/hostname"],
    "urllib.request.urlretrieve": ["file:///etc/hostname", "MARK"], "smtplib.SMTP": ["127.0.0.1"],
    "multiprocessing.Process": [], "threading.Thread": [], "signal.raise_signal": [15],
    "sys.exit": [3], "sys.setrecursionlimit": [10], "sys.addaudithook": [None],
    "atexit.register": ["print"], "tempfile.mkstemp": [], "zipfile.ZipFile": ["MARK", "w"],
    "matplotlib.pyplot.savefig": ["MARK"], "PIL.Image.open": ["KEEP"], "tqdm.tqdm.write": ["x"],
    "fsspec.open": ["MARK", "w"], "torch.load": ["evil.pt", None, None],
    "torch.serialization.load": ["evil.pt"], "torch.save": [[1], "MARK"],
    "torch.from_file": ["MARK", True, 4], "torch.UntypedStorage.from_file": ["MARK", True, 4],
    "torch.FloatStorage.from_file": ["MARK", True, 4], "torch.storage._load_from_bytes": [""],
    "torch.hub.load": ["evil", "model", "local"],
    "torch.hub.load_state_dict_from_url": ["file:///x"],
    "torch.hub.download_url_to_file": ["file:///etc/hostname", "MARK"],
    "torch.utils.model_zoo.load_url": ["file:///x"],
    "torch.utils.cpp_extension.load_inline": ["x", ""],
    "torch.utils.cpp_extension.subprocess.run": [["touch", "MARK"]], "torch.jit.load": ["evil.pt"],
    "torch.jit.CompilationUnit": ["def f(): pass"], "torch.jit.script": [None],
    "torch.jit.ScriptModule.define": [None, ""], "torch.import_ir_module": [None, "evil.pt"],
    "torch.PyTorchFileWriter": ["MARK"], "torch.PyTorchFileReader": ["KEEP"],
    "torch.CompilationUnit": [""], "torch.ops.load_library": ["evil.so"],
    "torch.ops.aten.add": [1, 2], "torch.ops.aten.from_file": ["MARK", True, 4],
    "torch.classes.load_library": ["evil.so"], "torch.package.PackageImporter": ["evil.pt"],
    "torch.package.PackageExporter": ["MARK"], "torch.utils.collect_env.run": [SHELL],
    "torch.utils.benchmark.Timer": [CODE],
    "torch.utils.data.datapipes.utils.decoder.basichandlers": ["pickle", ""],
    "torch.utils.data.datapipes.iter.FileOpener": [["MARK"], "w"],
    "torch.utils.data.datapipes.dataframe.dataframes.CaptureGetAttr": [None, "x", {}],
    "torch.utils.tensorboard.SummaryWriter": ["MARK"], "torch.fx.GraphModule": [{}, None],
    "torch.fx.Graph": [], "torch.fx.symbolic_trace": [None], "torch.compile": [None],
    "torch.nn.Module.compile": [None], "torch._dynamo.optimize": [],
    "torch._inductor.compile": [None, []], "torch.export.load": ["evil.pt2"],
    "torch.onnx.export": [None, [], "MARK"], "torch.multiprocessing.spawn": [None],
    "torch.multiprocessing.Process": [], "torch.distributed.run.main": [["evil.py"]],
    "torch.distributed.launch.main": [["evil.py"]], "torch.distributed.rpc.rpc_sync": ["a", None],
    "torch.distributed.elastic.multiprocessing.start_processes": [],
    "torch.distributed.init_process_group": ["gloo"], "torch.distributed.FileStore": ["MARK", 1],
    "torch.distributed.checkpoint.load": [{}], "torch.distributed.launcher.api.launch_agent": [],
    "torch.testing._internal.common_utils.run_tests": [], "torch.os.system": [SHELL],
    "torch.nn.modules.linear.math.sqrt": [1],
    "torch.nn.functional.importlib.import_module": ["evil"],
    "torch.nn.functional.torch.hub.load": ["evil", "model", "local"],
    "torch.utils.data.dataloader.python_multiprocessing.Process": [],
    "torch.utils.data.dataloader.os.system": [SHELL], "torch.nn.Linear.__init__": [None, 1, 1],
    "torch.nn.Linear.__init__.__globals__": [], "torch.nn.Linear.__class__": ["T", [], {}],
    "torch.nn.Linear.mro": [], "torch.nn.Module.load_state_dict": [None, {}],
    "torch.nn.modules.linear.sys.modules": [], "torch.nn.__builtins__.eval": [CODE],
    "torch.nn.functional.Callable": [], "torch.Tensor.data_ptr": [None],
    "torch.Tensor.numpy": [None], "torch.cuda.jiterator._create_jit_fn": [CODE],
    "torch.func.linearize": [None], "torch.library.Library": ["x", "DEF"],
    "torch.random.contextlib.ExitStack": [], "torch.distributions.utils.torch.os.system": [SHELL],
    "torch.backends.cuda.sys.exit": [3], "torchmetrics.functional.text.bert.os.system": [SHELL],
    "torchmetrics.utilities.imports.shutil.which": ["sh"], "torchmetrics.metric.pickle.loads": [""],
    "pytorch_lightning.cli.LightningCLI": [], "pytorch_lightning.Trainer.fit": [None],
    "pytorch_lightning.Trainer.save_checkpoint": [None, "MARK"],
    "pytorch_lightning.LightningModule.load_from_checkpoint": ["evil.ckpt"],
    "pytorch_lightning.LightningDataModule.load_from_checkpoint": ["evil.ckpt"],
    "pytorch_lightning.core.saving.save_hparams_to_yaml": ["MARK", {}],
    "pytorch_lightning.core.saving.load_hparams_from_yaml": ["evil.yaml"],
    "pytorch_lightning.trainer.trainer.os.system": [SHELL],
    "pytorch_lightning.trainer.trainer.logging.os.system": [SHELL],
    "pytorch_lightning.loggers.wandb.os.popen": [SHELL],
    "pytorch_lightning.utilities.upgrade_checkpoint.main": [],
    "pytorch_lightning.callbacks.timer.time.sleep": [9],
    "pytorch_lightning.callbacks.lambda_function.Callable": [],
    "pytorch_lightning.strategies.launchers.subprocess_script.subprocess.Popen": [["touch",
                                                                                   "MARK"]],
    "lightning_fabric.accelerators.registry.call_register_accelerators": [None, "evil"],
    "lightning_fabric.plugins.collectives.TorchCollective.init_group": [],
    "lightning_fabric.utilities.cloud_io._load": ["evil.pt"], "lightning_fabric.cli.main": [],
    "mlkit.train.train": [MNIST], "mlkit.use.load_run": ["."],
    "mlkit.train.shutil.rmtree": ["KEPT"], "mlkit.train.pickle.loads": [""],
    "mlkit.parts.build.build": [{}], "mlkit.parts.build.locate": ["os.system"],
    "mlkit.parts.locate.locate": ["os.system", None, ["posix"]],
    "mlkit.parts.locate.register": ["print"],
    "mlkit.parts.locate.importlib.import_module": ["evil"], "mlkit.cli.mlkit_train": [[MNIST]],
    "mlkit.cli.os.system": [SHELL], "mlkit.config.load.load_config": [MNIST],
    "mlkit.base.files.atomic": ["MARK"], "mlkit.run.folder.os.replace": ["KEEP", "MARK"],
    "mlkit.base.files.write_text": ["MARK", "x"], "mlkit.all.train": [MNIST],
    "mlkit.data.mnist.fetch": ["MARK", ["file:///etc"], ".", ""],
    "mlkit.data.images.read_npy": ["MARK"], "mlkit.base.files.atomic_folder": ["MARK"],
    "mlkit.data.mnist.os.replace": ["KEEP", "MARK"],
    "mlkit.data.mnist.urlopen": ["file:///etc/hostname"],
    "mlkit.fit.checkpoint.shutil.copyfile": ["KEEP", "MARK"],
    "mlkit.model.nets.torch.load": ["evil.pt"],
    "mlkit.model.lit.LitModel.load_from_checkpoint": ["evil.ckpt"],
    "mlkit.model.lit.functools.partial": ["print"], "mlkit.model.lit.inspect.sys.exit": [3],
    "evil.run": [], "evil": [], "timm.evil": [], "register.alias": [], "hostile_alias": [SHELL],
    "hostile_partial": [], "hostile_liar": [], "hostile_bound": [SHELL], "hostile_wrapper": [SHELL],
    "__main__.os.system": [SHELL], "__main__.__builtins__.eval": [CODE],
    "__main__.locate": ["os.system"], "hostile_instance": ["x"],
}
# what changes the process, loads, writes, connects or starts something: a name stands for a kind
HOSTILE |= dict.fromkeys("""
    torch.set_grad_enabled torch.autograd.grad_mode.set_grad_enabled
    torch.autograd.set_grad_enabled torch.autograd.set_detect_anomaly torch.autograd.detect_anomaly
    torch.autograd.backward torch.autograd.grad_mode.set_multithreading_enabled
    torch.set_default_dtype torch.set_default_device torch.set_default_tensor_type
    torch.set_num_threads torch.set_num_interop_threads torch.set_printoptions torch.set_rng_state
    torch.set_warn_always torch.set_flush_denormal torch.set_float32_matmul_precision
    torch.set_deterministic_debug_mode torch.use_deterministic_algorithms torch.manual_seed
    torch.seed torch.random.manual_seed torch.random.seed torch.random.set_rng_state
    torch.random.fork_rng torch.cuda.manual_seed torch.cuda.manual_seed_all torch.cuda.seed
    torch.cuda.set_device torch.cuda.init torch.cuda.empty_cache
    torch.cuda.set_per_process_memory_fraction torch.cuda.memory.MemPool torch.cuda.set_rng_state
    torch.cuda.memory._record_memory_history torch.mps.manual_seed
    torch.nn.modules.module.register_module_forward_hook torch.nn.modules.lazy.torch.load
    torch.nn.modules.module.register_module_forward_pre_hook torch.hub.set_dir
    torch.nn.modules.module.register_module_backward_hook torch.overrides.TorchFunctionMode
    torch.nn.modules.module.register_module_full_backward_hook torch.hub.list torch.hub.help
    torch.nn.modules.module.register_module_full_backward_pre_hook torch.hub.get_dir
    torch.nn.modules.module.register_module_module_registration_hook torch.hub.load_local
    torch.nn.modules.module.register_module_buffer_registration_hook torch.utils.swap_tensors
    torch.nn.modules.module.register_module_parameter_registration_hook torch.utils.set_module
    torch.optim.optimizer.register_optimizer_step_pre_hook torch.utils.rename_privateuse1_backend
    torch.optim.optimizer.register_optimizer_step_post_hook torch.serialization.add_safe_globals
    torch.nn.attention.register_flash_attention_impl torch.serialization.clear_safe_globals
    torch.nn.attention.activate_flash_attention_impl torch.serialization.register_package
    torch.distributions.register_kl torch.distributions.Distribution.set_default_validate_args
    torch.distributions.kl.register_kl torch.sparse.check_sparse_tensor_invariants.enable
    torch.sparse.check_sparse_tensor_invariants.disable
    torch.utils.data.MapDataPipe.register_function torch.utils.data.IterDataPipe.register_function
    torch.utils.data.IterDataPipe.set_reduce_ex_hook
    torch.utils.data.IterDataPipe.set_getstate_hook torch.utils.data.datapipes.iter.HttpReader
    torch.utils.data.IterDataPipe.register_datapipe_as_function
    torch.utils.data.datapipes.iter.Shuffler torch.utils.data.datapipes.iter.OnlineReader
    torch.utils.data.datapipes.iter.FileLister torch.utils.data.datapipes.iter.StreamReader
    torch.utils.data.datapipes.iter.RoutedDecoder torch.utils.data.graph.traverse_dps
    torch.utils.data.backward_compatibility.worker_init_fn
    torch.utils.data._utils.signal_handling._set_SIGCHLD_handler torch.utils.deterministic.fill
    torch.utils.data._utils.worker._worker_loop torch.utils.data._utils.pin_memory._pin_memory_loop
    torch.utils.model_zoo.tqdm torch.utils.checkpoint.set_checkpoint_debug_enabled
    torch.utils.checkpoint.set_checkpoint_early_stop torch.utils.cpp_extension.load
    torch.utils.cpp_extension.CUDAExtension torch.utils.cpp_extension.BuildExtension
    torch.utils.cpp_extension.verify_ninja_availability torch.utils.collect_env.main
    torch.utils.bottleneck.__main__.main torch.utils.dlpack.from_dlpack torch.from_dlpack
    torch.utils.mobile_optimizer.optimize_for_mobile torch.utils.bundled_inputs.bundle_inputs
    torch.utils.throughput_benchmark.ThroughputBenchmark torch.utils.show_pickle.main
    torch.utils.tensorboard.writer.FileWriter torch.utils.viz._cycles.observe_garbage
    torch.profiler.profile torch.profiler.tensorboard_trace_handler
    torch.profiler.ExecutionTraceObserver torch.autograd.profiler.profile
    torch.autograd.profiler.load_nvprof torch.autograd.Function.apply
    torch.monitor.register_event_handler torch.monitor.TensorboardEventHandler torch.futures.Future
    torch.jit.save torch.jit.trace torch.jit.fork torch.jit.freeze torch.jit.set_fusion_strategy
    torch.jit.enable_onednn_fusion torch.jit.annotate torch.jit.load_script torch.jit.script_method
    torch.fx.wrap torch.fx.replace_pattern torch.fx.experimental.proxy_tensor.make_fx
    torch.fx.Interpreter torch.fx.passes.graph_drawer.FxGraphDrawer torch.func.functional_call
    torch.library.define torch.library.custom_op torch.library.register_fake torch.library.impl
    torch.export.save torch.export.export torch.onnx.dynamo_export torch.onnx.verification.verify
    torch.compiler.compile torch.compiler.reset torch.compiler.load_cache_artifacts
    torch.compiler.set_stance torch._dynamo.reset torch._dynamo.config.patch
    torch._inductor.aot_compile torch._inductor.aoti_load_package torch._C._jit_set_profiling_mode
    torch._C._cuda_init torch._C._set_default_dtype torch._C.import_ir_module torch._C.fork
    torch._C._distributed_c10d.TCPStore torch._C.CompilationUnit
    torch._C._load_for_lite_interpreter torch.backends.cudnn.set_flags
    torch.backends.mkldnn.set_flags torch.backends.cuda.sdp_kernel
    torch.backends.cuda.enable_flash_sdp torch.backends.opt_einsum.set_flags
    torch.multiprocessing.set_start_method torch.multiprocessing.set_sharing_strategy
    torch.multiprocessing.Pool torch.multiprocessing.Queue torch.multiprocessing.Manager
    torch.multiprocessing.start_processes torch.multiprocessing.reductions.rebuild_storage_fd
    torch.distributed.TCPStore torch.distributed.HashStore torch.distributed.new_group
    torch.distributed.rendezvous torch.distributed.rpc.init_rpc torch.distributed.rpc.remote
    torch.distributed.destroy_process_group torch.distributed.all_gather_object
    torch.distributed.broadcast_object_list torch.distributed.checkpoint.save
    torch.distributed.checkpoint.FileSystemReader torch.distributed.checkpoint.FileSystemWriter
    torch.distributed.checkpoint.format_utils.dcp_to_torch_save torch.distributed.breakpoint
    torch.distributed.elastic.agent.server.local_elastic_agent.LocalElasticAgent
    torch.distributed.elastic.multiprocessing.errors.record torch.distributed.nn.RemoteModule
    torch.distributed.elastic.rendezvous.c10d_rendezvous_backend.create_backend
    torch.package.importlib.import_module torch.package.package_importer.PackageImporter
    torch.quantization.quantize torch.ao.quantization.prepare torch.masked.torch.load
    torch.storage.UntypedStorage.from_file torch.storage.UntypedStorage.from_buffer
    torch.UntypedStorage._new_shared_filename_cpu torch.TypedStorage.from_file torch.Tensor.numpy
    torch.Tensor.register_hook torch.Tensor.share_memory_ torch.Tensor.set_
    torch.nn.Module.register_forward_hook torch.nn.Module.apply torch.nn.Module.__setstate__
    torch.nn.Module.register_module torch.nn.Module.share_memory
    torch.optim.Optimizer.load_state_dict torch.optim.Optimizer.register_step_pre_hook
    torch.nn.parallel.distributed.dist.TCPStore torch.nn.utils.parametrize.register_parametrization
    torch.testing.make_tensor torch.testing.assert_close
    torch.testing._internal.common_utils.run_tests_simple lightning_fabric.seed_everything
    lightning_fabric.utilities.seed.seed_everything lightning_fabric.utilities.seed.reset_seed
    lightning_fabric.utilities.seed.pl_worker_init_function pytorch_lightning.seed_everything
    lightning_fabric.Fabric lightning_fabric.is_wrapped
    lightning_fabric.plugins.environments.lightning.find_free_network_port
    lightning_fabric.utilities.port_manager.find_free_port
    lightning_fabric.utilities.cloud_io.get_filesystem
    lightning_fabric.utilities.spike.SpikeDetection
    lightning_fabric.utilities.consolidate_checkpoint.main
    lightning_fabric.accelerators.Accelerator.register_accelerators
    lightning_fabric.strategies.Strategy.register_strategies
    lightning_fabric.strategies.deepspeed.reset_seed pytorch_lightning.Trainer.test
    pytorch_lightning.Trainer.predict
    pytorch_lightning.accelerators.Accelerator.register_accelerators
    pytorch_lightning.strategies.Strategy.register_strategies pytorch_lightning.Trainer.validate
    pytorch_lightning.utilities.migration.migrate_checkpoint
    pytorch_lightning.Callback.load_state_dict pytorch_lightning.utilities.rank_zero.rank_zero_only
    pytorch_lightning.utilities.consolidate_checkpoint.main
    pytorch_lightning.trainer.connectors.signal_connector._SignalConnector
    pytorch_lightning.core.hooks.CheckpointHooks pytorch_lightning.core.mixins.HyperparametersMixin
    pytorch_lightning.loops.fit_loop._FitLoop pytorch_lightning.serve.ServableModuleValidator
    pytorch_lightning.LightningModule.to_onnx pytorch_lightning.LightningModule.to_torchscript
    pytorch_lightning.cli.SaveConfigCallback numpy.seterr numpy.seterrcall numpy.set_printoptions
    numpy.random.seed numpy.random.set_state numpy.random.default_rng numpy.savez numpy.savetxt
    numpy.loadtxt numpy.genfromtxt numpy.memmap numpy.fromregex numpy.lib.npyio.NpzFile
    numpy.lib.format.open_memmap numpy.DataSource numpy.frombuffer numpy.vectorize
    numpy.apply_along_axis numpy.frompyfunc numpy.errstate numpy.test numpy.show_config
    numpy.distutils.exec_command.exec_command numpy.f2py.run_main numpy.core.records.fromfile
    numpy.rec.fromfile numpy.ma.mrecords.fromtextfile numpy.asarray random.seed random.setstate
    gc.disable gc.set_threshold sys.settrace sys.setprofile sys.setswitchinterval
    sys.set_int_max_str_digits sys.intern sys.breakpointhook sys.unraisablehook os.environ.update
    os.environ.clear os.chdir os.umask os.setuid os.nice os.abort os._exit os.fork os.forkpty
    os.mkfifo os.symlink os.link os.truncate os.unlink os.makedirs os.rename os.replace os.chmod
    os.open os.write os.scandir os.register_at_fork os.sched_setaffinity os.dup2 os.close
    os.closerange os.setpriority os.spawnv os.startfile signal.signal signal.alarm signal.setitimer
    signal.pthread_kill signal.siginterrupt resource.setrlimit locale.setlocale time.sleep
    time.tzset warnings.filterwarnings warnings.simplefilter logging.disable logging.basicConfig
    logging.setLoggerClass logging.handlers.SocketHandler logging.handlers.SMTPHandler
    logging.handlers.HTTPHandler logging.config.fileConfig logging.config.listen
    faulthandler.dump_traceback_later faulthandler.enable tracemalloc.start threading.settrace
    threading.Timer threading.setprofile multiprocessing.set_start_method multiprocessing.Pool
    multiprocessing.connection.Client multiprocessing.connection.Listener
    multiprocessing.managers.BaseManager asyncio.run asyncio.create_subprocess_shell
    concurrent.futures.ProcessPoolExecutor concurrent.futures.ThreadPoolExecutor sched.scheduler
    queue.Queue contextlib.ExitStack contextlib.redirect_stdout contextlib.chdir
    builtins.breakpoint builtins.input builtins.print builtins.setattr builtins.delattr
    builtins.globals builtins.memoryview builtins.exit builtins.help builtins.super
    builtins.property builtins.classmethod builtins.map types.ModuleType types.MethodType
    types.new_class types.SimpleNamespace types.coroutine importlib.util.module_from_spec
    importlib.machinery.SourceFileLoader importlib.invalidate_caches
    importlib.machinery.ExtensionFileLoader importlib.metadata.entry_points zipimport.zipimporter
    pkgutil.get_data pkgutil.walk_packages site.addsitedir sysconfig.get_config_vars
    code.compile_command codeop.compile_command ast.literal_eval ast.parse compileall.compile_file
    py_compile.compile inspect.getsource linecache.updatecache dis.dis symtable.symtable
    pickle.dump pickle.Unpickler pickletools.dis copyreg.pickle copyreg.__newobj__ marshal.load
    shelve.DbfilenameShelf json.load json.dump csv.reader configparser.ConfigParser.read
    plistlib.load tomllib.load xml.etree.ElementTree.parse xml.dom.minidom.parse xml.sax.parse
    html.parser.HTMLParser tarfile.open tarfile.TarFile.extractall zipfile.Path gzip.open bz2.open
    lzma.open shutil.move shutil.copytree shutil.make_archive shutil.unpack_archive
    shutil.register_unpack_format shutil.chown pathlib.Path.unlink pathlib.Path.mkdir
    pathlib.Path.rename pathlib.Path.touch glob.glob fileinput.input filecmp.clear_cache
    tempfile.mkdtemp tempfile.NamedTemporaryFile socketserver.TCPServer http.client.HTTPConnection
    http.server.test xmlrpc.client.ServerProxy xmlrpc.server.SimpleXMLRPCServer ftplib.FTP
    imaplib.IMAP4 poplib.POP3 telnetlib.Telnet ssl.create_default_context socket.socketpair
    socket.gethostbyname socket.setdefaulttimeout urllib.request.install_opener
    urllib.request.build_opener urllib.request.URLopener select.select mmap.mmap fcntl.fcntl
    termios.tcsetattr pty.spawn pty.fork tty.setraw curses.initscr readline.set_completer cmd.Cmd
    ctypes.PyDLL ctypes.cast ctypes.string_at ctypes.memmove ctypes.util.find_library venv.create
    ensurepip.bootstrap pip.main setuptools.setup unittest.main cProfile.runctx trace.main
    timeit.main turtledemo.main idlelib.idle.main lib2to3.main.main pandas.read_csv pandas.read_sql
    pandas.read_html pandas.read_parquet pandas.HDFStore pandas.ExcelWriter pandas.set_option
    pandas.DataFrame.eval pandas.DataFrame.query matplotlib.use matplotlib.rc_file
    matplotlib.pyplot.imread matplotlib.style.use matplotlib.animation.FFMpegWriter PIL.Image.init
    PIL.Image.register_open PIL.ImageShow.show PIL.ImageGrab.grab PIL.EpsImagePlugin.Ghostscript
    PIL.ImageFont.truetype torchvision.datasets.utils.download_url torchvision.io.write_png
    torchvision.io.write_file torchvision.models.register_model torchvision.set_image_backend
    torchvision.datasets.lsun.LSUN timm.models.load_checkpoint timm.models.load_state_dict
    timm.models.resume_checkpoint timm.models.load_pretrained timm.models.register_model
    timm.layers.set_fused_attn timm.models._hub.download_cached_file
    timm.models._helpers.load_state_dict timm.utils.random_seed
    torchmetrics.utilities.data.torch.load
    torchmetrics.utilities.checks.check_forward_full_state_property
    torchmetrics.functional.image.lpips.torch.load fsspec.filesystem fsspec.get_mapper
    filelock.FileLock pooch.retrieve pooch.create dotenv.load_dotenv dotenv.set_key
    pydantic.create_model omegaconf.OmegaConf.register_new_resolver omegaconf.OmegaConf.save
    optuna.create_study requests.get tqdm.auto.tqdm yaml.full_load yaml.add_constructor
    sklearn.datasets.fetch_openml mlkit.base.own.allow_folder mlkit.config.secrets.use_dotenv
    mlkit.run.folder.Run.new mlkit.use.evaluate mlkit.train.resume
    mlkit.config.node.OmegaConf.register_new_resolver
    """.split(), [])
SETUP = """
import functools, json, operator, os, sys, warnings
from pathlib import Path
import torch, pandas, yaml, numpy, pdb, runpy, shutil, pytorch_lightning, torchmetrics
from mlkit.parts.outline import outline
from mlkit.parts.locate import locate, register
from mlkit.parts.trust import TargetError, Untrusted
from mlkit.parts.build import build
from mlkit.parts.check import find_problems
from mlkit.parts.check import find_problems
from mlkit.config.load import load_config
from mlkit.config.node import ConfigError
from omegaconf import OmegaConf
import mlkit.train, mlkit.use, logging.config

class Liar(__import__("subprocess").Popen):
    __module__, __qualname__ = "torch.nn", "Linear"
register(os.system, name="hostile_alias")
register(functools.partial(os.system, "touch MARK"), name="hostile_partial")
register(Liar, name="hostile_liar")
register(shutil.os.__loader__.load_module if hasattr(os.__loader__, "load_module") else \
Path("MARK").write_text, name="hostile_bound")
register(torch.autocast("cpu")(os.system), name="hostile_wrapper")  # torch's own wrapper around it
register(operator.methodcaller("upper"), name="hostile_instance")

heard, listening = [], False
ALARM = {"os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "os.remove", \
"os.rename", "os.kill", "os.putenv", "shutil.rmtree",
         "shutil.copyfile", "ctypes.dlopen", "socket.__new__", "socket.connect", "urllib.Request", \
"webbrowser.open", "pickle.find_class", "sqlite3.connect",
         "tempfile.mkstemp", "sys.addaudithook", "signal.pthread_kill", "os.mkdir"}
def hook(event, args):
    if not listening: return
    if event in ALARM or event == "open" and isinstance(args[1], str) and set(args[1]) & \
set("wax+"): heard.append(f"{event} {args}"[:200])
    if event == "import" and args[0] in ("evil", "antigravity", "this", "code", "webbrowser", \
"shelve", "dbm", "smtplib", "timm"): heard.append(args[0])
    if event in ("exec", "compile") and "MARK" in repr(args): heard.append(event)
sys.addaudithook(hook)

def refused(target, f, *args):
    "One line that names the target, and nothing heard."
    global listening
    listening = True
    try: said = f(*args)
    except (TargetError, ConfigError) as e: said = e
    except BaseException as e: said = f"{type(e).__name__} instead of a refusal"
    else: said = said if f is find_problems else f"no refusal but {said}"
    listening = False
    lines = [o for o in str(said).splitlines() if target in o or " has no '" in o]
    if len(lines) != 1 or heard or Path("MARK").exists() or not Path("KEEP").exists():
        print("BROKEN", target, f.__name__, said, heard, flush=True)
    heard.clear()
    Path("MARK").unlink(missing_ok=True)
"""


@pytest.fixture(scope="module")
def lair(tmp_path_factory) -> Path:
    """A project, beside a folder on the path with code that does harm when it is imported, and a
    shared run that brings such code along."""
    folder = tmp_path_factory.mktemp("lair")
    for name in ("KEEP", "KEPT/file", "settings.ini"): write(folder / name, "[DEFAULT]")
    for name in ("../away/evil.py", "shared/evil.py", "shared/timm.py", "shared/hubconf.py"):
        write(folder / name, CODE)
    write(folder / "hostile.json", json.dumps(HOSTILE))
    return folder


BY_REFERENCE = """
for target, args in [*json.load(open("hostile.json")).items()][int(sys.argv[1])::int(sys.argv[2])]:
    module, _, last = target.rpartition(".")
    node, at = {"_target_": target, "_args_": args}, "${module}.${last}" if module else "${last}"
    cfg = load_config({"defaults": [], "seed": 0, "name": "a", "module": module, "last": last, \
"target": target, "args": args, "yes": True, "node": node, "all": {"x": {"y": node}}, \
"words": {"module": "${module}", "at": at}, "used": {
        "target": {"_target_": "${target}", "_args_": args}, "node": "${node}",
        "parts": {"_target_": at, "_args_": "${args}"}, "whole": {"_target_": at},
        "select": {"_target_": "${oc.select:target}", "_partial_": "${yes}"},
        "twice": {"_target_": "${words.at}", "_args_": "${oc.create:${args}}"},
        "nested": {"_target_": "${${oc.decode:target}}", "_args_": "${..parts._args_}"},
        "inside": {"x": "${all.x}"}, "in_a_list": ["${all.x.y}", 1],
        "argument": {"_target_": "torch.utils.checkpoint.checkpoint", "function": "${node}"},
        "arguments": {"_target_": "torch.nn.Sequential", "_args_": ["${used.parts}"]},
        "partial": {"_target_": at, "_partial_": "${yes}", "_args_": "${args}"}}})
    for name, node in cfg.used.items():
        refused(target, build, node)
        if name in "target parts whole select twice nested partial": \
refused(target, find_problems, node)
"""


def test_nothing_hostile_is_called(lair):
    """Through locate, outline, check and build; whole, as a partial, as an argument of something
    allowed, and where the name, its parts, the arguments or the node stand elsewhere."""
    assert len(HOSTILE) >= 400 + 195
    done = python(SETUP + """
for target, args in json.load(open("hostile.json")).items():
    refused(target, locate, target)
    refused(target, outline, target)
    node = {"_target_": target, "_args_": args}
    inner = {"_target_": "torch.utils.checkpoint.checkpoint", "function": {**node, "_partial_": \
True}, "use_reentrant": False}
    cfg = load_config({"defaults": [], "a": node, "b": {**node, "_partial_": True}, "c": inner, \
"d": [{"e": node}]})
    for name in cfg: refused(target, build, cfg[name])
    refused(target, find_problems, cfg.a)
    refused(target, find_problems, cfg.d[0].e)
""" + BY_REFERENCE, 0, 40, cwd=lair, PYTHONPATH=f"{lair.parent / 'away'}:{ROOT}")
    assert done.stdout == ""


@pytest.mark.slow
def test_nothing_hostile_is_called_by_reference(lair):
    path = f"{lair.parent / 'away'}:{ROOT}"
    words = SETUP + BY_REFERENCE, 1, 1 if ALL else 4
    assert python(*words, cwd=lair, PYTHONPATH=path).stdout == ""


RUN = """
run, trainer = Path("shared"), {"_target_": "pytorch_lightning.Trainer"}
(run / "run.json").write_text(json.dumps({"name": "a", "status": "done", "metrics": {}, \
"config": {}}))
for target, args in json.load(open("hostile.json")).items():
    cfg = {"defaults": [], "name": "a", "seed": 0, "trainer": trainer, "data": None, \
"model": {"_target_": target, "_args_": args}}
    (run / "config.yaml").write_text(json.dumps(cfg))
    refused(target, mlkit.use.load_run, run)
"""


def test_a_run_that_somebody_shared_calls_nothing(lair):
    path = f"{lair.parent / 'away'}:{ROOT}"
    assert python(SETUP + RUN, cwd=lair, PYTHONPATH=path).stdout == ""


@pytest.mark.parametrize("target",
                         ["pytorch_lightning.trainer.trainer.os.system", "evil.run", "timm.evil"])
def test_a_shared_run_in_the_shell_is_one_line_and_exit_2(target, lair, tmp_path):
    run = tmp_path / "shared"
    for name in ("evil.py", "timm.py", "pyproject.toml"):
        write(run / name, "" if name == "pyproject.toml"
              else f"open({str(tmp_path / 'MARK')!r}, 'w')")
    cfg = OmegaConf.to_container(load_config(MNIST), resolve=False)
    OmegaConf.save(OmegaConf.create({**cfg, "defaults": [], "model": {"_target_": target}}),
                   run / "config.yaml")
    write(run / "run.json",
          json.dumps({"name": "a", "status": "done", "metrics": {}, "config": {}}))
    for words in (["mlkit_eval", run], ["mlkit_train", run / "config.yaml", f"runs={tmp_path}"]):
        done = command(*words, cwd=tmp_path)
        assert (done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
                and target in done.stderr), done.stderr
        ways = ("if you trust it", "no module", "allow it once")
        assert any(o in done.stderr for o in ways), done.stderr
        assert not (tmp_path / "MARK").exists()


def test_a_project_that_comes_with_a_shared_run_is_not_the_readers(tmp_path):
    """The code around a run that somebody shared is theirs; the project that counts is that of
    whoever evaluates it."""
    for name, text in {"pyproject.toml": "", "evil.py": f"open({str(tmp_path / 'MARK')!r}, 'w')",
                       "timm/__init__.py": f"open({str(tmp_path / 'MARK')!r}, 'w')"}.items():
        write(tmp_path / "theirs" / name, text)
    write(tmp_path / "mine" / "settings.ini", "[DEFAULT]")
    whole, run = OmegaConf.to_container(load_config(MNIST),
                                        resolve=False), tmp_path / "theirs" / "run"
    write(run / "run.json",
          json.dumps({"name": "a", "status": "done", "metrics": {}, "config": {}}))
    for target in ("evil.run", "timm.create_model"):
        OmegaConf.save(OmegaConf.create({**whole, "defaults": [], "model": {"_target_": target}}),
                       run / "config.yaml")
        done = command("mlkit_eval", run, cwd=tmp_path / "mine")
        assert (done.returncode == 2 and target in done.stderr
                and not (tmp_path / "MARK").exists()), done.stderr


# -- what is allowed, and that there is no false alarm

NORMAL = """torch.nn torch.nn.functional torch.nn.init torch.nn.utils torch.nn.utils.prune \
torch.nn.utils.parametrizations torch.optim
    torch.optim.lr_scheduler torch.optim.swa_utils torch.utils.data torch.distributions \
torch.distributions.transforms torch.linalg torch.fft
    torch.special torch.amp torchmetrics torchmetrics.functional torchmetrics.classification \
torchmetrics.regression torchmetrics.wrappers
    torchmetrics.image torchmetrics.text torchmetrics.audio torchmetrics.segmentation \
torchmetrics.clustering torchmetrics.detection
    torchmetrics.functional.classification torchmetrics.functional.image pytorch_lightning \
pytorch_lightning.callbacks pytorch_lightning.loggers
    pytorch_lightning.strategies pytorch_lightning.profilers pytorch_lightning.plugins \
pytorch_lightning.plugins.environments
    pytorch_lightning.plugins.io pytorch_lightning.tuner pytorch_lightning.accelerators \
mlkit.model.nets
    mlkit.model.lit mlkit.model.losses mlkit.model.augment mlkit.fit.checkpoint \
mlkit.fit.progress mlkit.fit.randomness
    mlkit.data.mnist mlkit.data.folder mlkit.data.base""".split()
NOT_MEANT = """Callable Optional DType boolean_dispatch handle_torch_function has_torch_function \
has_torch_function_unary
    has_torch_function_variadic ScalingType SwizzleType ABC Iterable abstractmethod LinAlgError \
fetch register_kl seed_everything""".split()


def public(module) -> list[str]:
    "The names of what a module offers to be called."
    names, home = getattr(module, "__all__", dir(module)), module.__name__
    if home.startswith("mlkit."):  # a config may also name what `import *` does not offer
        own = [n for n, o in vars(module).items() if getattr(o, "__module__", "") == home]
        marked = getattr(module, "_targets_", True)
        names = marked if isinstance(marked, tuple) else [*names, *own]
    names = [n for n in names if not n.startswith("_") and n not in NOT_MEANT]
    return [n for n in names if callable(o := getattr(module, n, None)) and not inspect.ismodule(o)]


@pytest.mark.parametrize("name", NORMAL)
def test_normal_use_raises_no_false_alarm(name):
    place = importlib.import_module(name)
    assert [n for n in public(place) if locate(f"{name}.{n}") is not getattr(place, n)] == []


def test_torch_functions_and_types_are_allowed():
    functions = [n for n in dir(torch._C._VariableFunctions) if not n.startswith("_")
                 and hasattr(torch, n) and n != "from_file"]
    types_ = ["Tensor", "FloatTensor", "LongTensor", "Generator", "device", "Size", "finfo",
              "no_grad", "autocast"]
    assert len(functions) > 500
    for name in functions + types_: assert locate(f"torch.{name}") is getattr(torch, name)


OPTIONS = [*(ROOT / "mlkit" / "configs").rglob("*.yaml"), *(ROOT / "configs").rglob("*.yaml")]


@pytest.mark.parametrize("path", sorted(OPTIONS), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_our_configs_are_allowed(path):
    todo = [yaml.safe_load(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, (dict, list)): todo += node.values() if isinstance(node, dict) else node
        target = node.get("_target_", "???") if isinstance(node, dict) else "???"
        if "???" in target or "${" in target or without_recipes(target): continue
        assert callable(locate(target, ROOT))


# -- looking for more: everything that can be reached is honest, and none of it runs code out of
# data

LIBRARIES = ("torch", "torchmetrics", "pytorch_lightning", "lightning_fabric", "mlkit")
RUNS_CODE = {"exec", "eval", "compile", "__import__", "import_module", "subprocess", "system",
             "popen", "Popen", "pickle", "load", "loads", "marshal",
             "ctypes", "load_library", "CDLL"}
REVIEWED = {  # what is allowed and has such a name in its code, and why that is none
    "mlkit.data.images.check_image": "PIL's Image.load decodes the pixels",
    "mlkit.model.lit.LitModel.__init__": "torch.compile of its own net, asked for by `compile: "
                                         "true`, without options",
    "mlkit.parts.rebuild.saved": "torch.load of tensors alone (weights_only), below the config",
    "pytorch_lightning.accelerators.cuda.get_nvidia_gpu_stats": "runs nvidia-smi, with fixed "
                                                                "arguments",
    "torch.nn.functional.interpolate": "imports torch._decomp.decompositions, a fixed name",
    "torch.nn.functional.max_pool3d_with_indices": "the same",
    "torch.nn.functional.pad": "the same",
    "torchmetrics.functional.audio.nisqa.non_intrusive_speech_quality_assessment": "Module.eval()",
    "torchmetrics.functional.image.dists.DISTSNetwork.__init__": "torch.load of weights that come "
                                                                 "with torchmetrics",
    "torchmetrics.functional.text.bert.bert_score": "Module.eval()",
    "torchmetrics.image.fid.NoTrainInceptionV3.__init__": "Module.eval()",
}


@functools.cache
def reachable() -> dict[str, object]:
    """Every object that a config could name: an exhaustive walk over all modules that `locate`
    would import, and the classes in them."""
    trust, found = Trust(), {}
    todo = list(LIBRARIES)
    while todo:
        place = importlib.import_module(todo.pop())
        below = [o.name
                 for o in pkgutil.iter_modules(getattr(place, "__path__", []),
                                               f"{place.__name__}.")]
        todo += [o for o in below if trust.may_import(o) and "._" not in o]
    modules = {k: m for k, m in sys.modules.items() if k.split(".")[0] in LIBRARIES
               and "._" not in k and isinstance(m, types.ModuleType)}
    seen = set()
    for path, place in sorted(modules.items()):
        for name, obj in sorted(vars(place).items()):
            if name.startswith("_") or id(obj) in seen or not callable(obj): continue
            seen.add(id(obj))
            inside = [f"{path}.{name}.{o}" for o in dir(obj)
                      if not o.startswith("_")] if isinstance(obj, type) else []
            for target in (f"{path}.{name}", *inside):
                try: found[target] = locate(target)
                except TargetError: pass
    return found


def codes(f) -> list[types.CodeType]:
    "The code of a Python function, with that of the functions inside it."
    f = inspect.unwrap(getattr(f, "__func__", f))
    todo, out = [f.__code__] if isinstance(f, types.FunctionType) else [], []
    while todo:
        out.append(code := todo.pop())
        todo += [o for o in code.co_consts if isinstance(o, types.CodeType)]
    return out


def makers(obj) -> list:
    "What runs when a target is called."
    if not isinstance(obj, type): return [obj]
    return [f for k in ("__new__", "__init__", "__post_init__")
            if (f := inspect.getattr_static(obj, k, None)) is not None]


PUT_TO_EVAL = {"mlkit.recipes.contrails.submission", "mlkit.recipes.fashion_mnist.Distill.__init__",
               "mlkit.use.trained",
               # `model.eval()`
               "mlkit.recipes.graphemes.Features.__init__", "mlkit.recipes.graphemes.submission"}


def test_nothing_reachable_runs_code_from_data():
    found = {}
    for target, obj in reachable().items():
        for f in makers(obj):
            where = f"{getattr(f, '__module__', '')}.{getattr(f, '__qualname__', '')}"
            for code in codes(f):
                if names := RUNS_CODE & {*code.co_names}:
                    found.setdefault(where, set()).update(names)
    ours = {k for k, v in found.items() if k in PUT_TO_EVAL and v == {"eval"}}
    assert {k: v for k, v in found.items() if k not in REVIEWED and k not in ours} == {}


# written in C, and what some classes inherit from
HARMLESS_MAKERS = {"object", "dict", "tuple", "str", "int", "BaseException"}
HARMLESS_FILES = ("/enum.py", "/typing.py", "/contextlib.py", "/rich/progress.py", "/tqdm/std.py")


def test_everything_reachable_is_at_home_in_a_trusted_package():
    assert len(found := reachable()) > 2000
    inside = {str(Path(importlib.import_module(o).__file__).parent) for o in LIBRARIES}
    for target, obj in found.items():
        for f in makers(obj):
            for code in codes(f)[:1]:
                home = code.co_filename
                # a dataclass's or named tuple's __init__
                generated = home.startswith("<") and isinstance(obj, type)
                assert (generated or any(home.startswith(o + os.sep) for o in inside)
                        or home.endswith(HARMLESS_FILES)), (target, home)
            if not codes(f) and isinstance(obj,
                                           type) and isinstance(owner := getattr(f, "__objclass__",
                                                                                 None), type):
                assert (owner.__name__ in HARMLESS_MAKERS
                        or owner.__module__.split(".")[0] in LIBRARIES), (target, owner)


def test_random_walks_find_no_way_out():
    """Long paths through whatever hangs together: where they end is refused, or at home in a
    library."""
    import random
    rng, start = random.Random(0), [importlib.import_module(o) for o in LIBRARIES]
    for _ in range(3000):
        obj, path = (o := rng.choice(start)), [o.__name__]
        for _ in range(rng.randint(1, 7)):
            names = [n for n in (vars(obj) if isinstance(obj, (types.ModuleType, type)) else ())
                     if n.isidentifier() and n != "__builtins__"]
            if not names: break
            path.append(rng.choice(names))
            obj = vars(obj)[path[-1]]
        try: got = locate(".".join(path))
        except TargetError: continue
        assert all(Trust().may_call(o) for o in homes(got)), path


# -- homes

def test_homes_of_what_passes_a_call_on():
    where = lambda o: [*homes(o)]
    class Local(nn.Linear):
        def forward(self, x): return x
    class Calls:
        def __call__(self): ...
    assert (where(logging.os.system) == ["posix.system"]
            and where(nn.Linear) == ["torch.nn.modules.linear.Linear"])
    assert where(functools.partial(nn.Linear, 3, bias=eval)) == ["torch.nn.modules.linear.Linear",
                                                                 "builtins.eval"]
    assert {o.split(".")[0] for o in where(Local)} == {__name__.split(".")[0], "torch"}
    assert (where("".join) == ["builtins.str.join"] and where(str.join) == ["builtins.str.join"]
            and where(dict.fromkeys) == ["builtins.dict.fromkeys"])
    assert where(Calls())[0].startswith(__name__) and where([].append) == ["builtins.list.append"]
    assert (
        where(nn.Embedding.from_pretrained) == ["torch.nn.modules.sparse.Embedding.from_pretrained",
                                                "torch.nn.modules.sparse.Embedding"])
    assert ("posix.system" in where(torch.autocast("cpu")(os.system))
            and "posix.system" in where(functools.lru_cache(os.system)))
    loop = lambda: None
    loop.__wrapped__, loop.__module__ = loop, "nowhere"
    assert len(where(loop)) == 2


def lying_class(**about):
    class Liar(subprocess.Popen): ...
    for k, v in about.items(): setattr(Liar, k, v)
    return Liar


def test_a_class_that_lies_about_its_home_is_found_out():
    for about in [{}, dict(__module__="torch.nn"),
                  dict(__module__="torch.nn", __qualname__="Linear"), dict(__module__=None),
                  dict(__module__="mlkit.model.nets")]:
        assert "subprocess.Popen" in homes(lying_class(**about))
        register(lying_class(**about), name="a_liar")
        with pytest.raises(Untrusted, match="a_liar is subprocess.Popen"): locate("a_liar")


def test_registered_names_are_judged_by_what_they_stand_for(tmp_path):
    class Mine(nn.Linear): ...
    register(Mine, name="mine_local")
    register(functools.partial(nn.Linear, 3), name="a_partial")
    assert locate("mine_local") is Mine and locate("a_partial").func is nn.Linear
    for obj in (os.system, functools.partial(functools.partial(eval), "1"),
                functools.partial(nn.Linear, os.system), torch.hub.load, [].append,
                nn.Module.compile):
        register(obj, name="an_alias")
        with pytest.raises(Untrusted, match="an_alias"): locate("an_alias", ROOT)


# -- who vouches

def test_messages_say_what_it_is_and_how_to_allow_it():
    def says(target, **kwargs):
        with pytest.raises(Untrusted) as e: locate(target, **kwargs)
        return str(e.value)
    assert says("logging.os.system") == ("logging.os.system is posix.system, and posix is not a "
                                         "trusted package; "
                                         'if you trust it, set MLKIT_TRUST=posix.system or pass '
                                         'trust=["posix.system"]')
    assert says("torch.hub.load") == ("torch.hub.load: not among the parts of torch that a config "
                                      "may use; "
                                      'if you trust it, set MLKIT_TRUST=torch.hub.load or pass '
                                      'trust=["torch.hub.load"]')
    assert says("shutil.rmtree").startswith("shutil.rmtree: shutil is not a trusted package; if "
                                            "you trust it, set MLKIT_TRUST=shutil.rmtree or")
    assert "MLKIT_TRUST=torch.from_file" in says("torch.from_file")
    for target in HOSTILE:
        if "." in target and "__" not in target and target not in ("evil.run", "imp.load_source",
                                                                   "timm.evil", "register.alias"):
            try: locate(target)
            except TargetError as e: assert "\n" not in str(e) and len(str(e)) < 400


@pytest.mark.parametrize("target, entry", [
    ("os.system", "posix"), ("os.system", "posix.system"), ("os.system", "os.system"),
    ("logging.os.system", "posix.system"),
    ("datetime.timedelta", "datetime"), ("torch.hub.load", "torch.hub.load"),
    ("torch.os.system", "posix.system"), ("numpy.mean", "numpy"),
    ("torch._assert", "torch._assert"),
    ("torch.ao.quantization.QConfig", "torch.ao.quantization.QConfig"),
    ("collections.OrderedDict", "collections.OrderedDict"),
    ("torch.nn.Module.compile", "torch.nn.Module.compile"),
    ("mlkit.train.train", "mlkit.train.train"), ("json.loads", " json , other")])
def test_a_name_in_the_environment_or_the_argument_vouches(target, entry, monkeypatch):
    with pytest.raises(Untrusted): locate(target, ROOT)
    given = pkgutil.resolve_name(target)
    assert locate(target, trust=[o.strip() for o in entry.split(",")]) is given
    monkeypatch.setenv("MLKIT_TRUST", entry)
    assert locate(target) is given and outline(target) is given


@pytest.mark.parametrize("target, entry", [
    ("torch.hub.load", "torch"), ("torch.hub.load", "torch.hub"), ("torch.load", "torch.nn"),
    ("os.system", "o"), ("os.system", "pos"), ("os.system", ""),
    ("logging.os.system", "logging"), ("posix.system", "posix.systemd"),
    ("torch.nn.Linear.__init__", "torch.nn.Linear.__init__")])
def test_an_entry_vouches_for_no_more_than_it_says(target, entry, monkeypatch):
    monkeypatch.setenv("MLKIT_TRUST", entry)
    for trust in ((), [entry], entry):
        with pytest.raises(TargetError): locate(target, trust=trust)


def test_neither_the_config_nor_a_file_beside_it_can_vouch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "settings.ini", "[DEFAULT]\n")
    write(tmp_path / ".env", "MLKIT_TRUST=posix\nMLKIT_trust=posix\n")
    cfg = {"trust": ["posix"], "MLKIT_TRUST": "posix", "_trust": ["posix"],
           "a": {"_target_": "os.system", "_args_": ["touch MARK"]}}
    for source in (cfg, write(tmp_path / "a.yaml", OmegaConf.to_yaml(OmegaConf.create(cfg)))):
        loaded = load_config(source)
        with pytest.raises(ConfigError, match="posix is not a trusted package"): build(loaded.a)
    assert not (tmp_path / "MARK").exists()
    assert (build(load_config(cfg, trust=["posix.getpid"] + ["posix.system"]).a) == 0
            and (tmp_path / "MARK").exists())


# -- the project's own modules

@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a package, a module under src, a run, an environment and somebody else's
    package beside it."""
    files = {"own_a/__init__.py": "",
             "own_a/net.py": "import os, numpy as np\nfrom torch import nn\nclass Net(nn.Linear): "
                             "...\ndef _make(): return Net(1, 1)\n",
             "src/own_b.py": "def make(): return 1\n", "own_c/d/net.py": "def make(): return 1\n",
             "other/elsewhere.py": "def make(): return 1\n",
             "root/venv/pyvenv.cfg": "", "root/venv/in_venv.py": "x = int\ndef make(): ...\n",
             "root/lib/site-packages/in_site.py": "def make(): ...\n",
             "root/runs/shared/run.json": "{}", "root/runs/shared/code.py": "def make(): ...\n"}
    for name, text in files.items():
        write(tmp_path / ("" if name.startswith(("root", "other")) else "root") / name, text)
    for o in ("root", "root/src", "other", "root/venv", "root/lib/site-packages"):
        monkeypatch.syspath_prepend(str(tmp_path / o))
    yield tmp_path / "root"
    for o in [k for k in sys.modules
              if k.split(".")[0] in ("own_a", "own_b", "own_c", "elsewhere", "in_venv", "in_site",
                                     "runs", "registers")]:
        del sys.modules[o]


def test_the_projects_own_modules_are_trusted(project):
    for target in ("own_a.net.Net", "own_a.net._make", "own_b.make", "own_c.d.net.make",
                   "own_a.net.nn.Linear"):
        assert callable(locate(target, project))
    for target in ("elsewhere.make", "in_venv.make", "in_site.make", "runs.shared.code.make",
                   "own_a.net.os.system", "own_a.net.np.load"):
        with pytest.raises(Untrusted, match=target): locate(target, project)
    assert not {"elsewhere", "in_venv", "in_site", "runs.shared.code"} & set(sys.modules)
    del sys.modules["own_a"], sys.modules["own_a.net"]
    with pytest.raises(Untrusted, match="own_a is not a trusted package"): locate("own_a.net.Net")
    assert "own_a" not in sys.modules
    assert locate("elsewhere.make", project, trust=["elsewhere"])() == 1


def test_a_mark_opens_what_its_module_defines_and_nothing_else(project):
    text = "_targets_ = True\nfrom mlkit.model.losses import HeadsLoss\n"
    text += "class Mine(HeadsLoss): ...\ndef make(): ...\n"
    write(project.parent / "other" / "elsewhere.py", text)
    assert locate("mlkit.model.losses.accuracy") and locate("mlkit.use.trained")
    assert locate("elsewhere.Mine", project, trust=["elsewhere"])
    targets = ["elsewhere.Mine", "elsewhere.make", "mlkit.use.load_run",
               "mlkit.base.files.write_text"]
    targets += [f"mlkit.data.mnist.{o}" for o in ("find_root", "Path", "Path.write_text")]
    for target in targets:
        with pytest.raises(TargetError): locate(target, project)
    assert locate("elsewhere.HeadsLoss", project,
                  trust=["elsewhere"]).__module__ == "mlkit.model.losses"


def test_a_run_is_no_project(project):
    write(project / "run.json", "{}")
    write(project / "timm.py", "def make(): ...\n")
    write(project / "registers.py",
          "from mlkit.parts.locate import register\n@register\ndef a_name_of_theirs(): ...\n")
    for target in ("own_a.net.Net", "own_b.make", "timm.make"):
        with pytest.raises(Untrusted, match=target): locate(target, project)
    with pytest.raises(TargetError, match="'a_name_of_theirs' is not registered"):
        locate("a_name_of_theirs", project)
    assert not {"own_a", "own_b", "timm", "registers"} & set(sys.modules)
    (project / "run.json").unlink()
    assert locate("a_name_of_theirs", project)() is None


def test_a_library_in_the_projects_folder_is_still_a_library():
    for target in ("mlkit.train.train", "mlkit.base.errors.did_you_mean"):
        with pytest.raises(Untrusted): locate(target, ROOT)


def test_names_of_the_running_program(tmp_path):
    write(tmp_path / "prog.py",
          "import os, sys\nfrom mlkit.parts.locate import locate\nclass Mine: ...\ndef f(): ...\n"
          "print(locate('__main__.Mine') is Mine, locate('__main__.f') is f)\ntry: "
          "locate('__main__.os.system')\nexcept ValueError as e: print(e)\n")
    done = subprocess.run([sys.executable, "prog.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.startswith("True True\n__main__.os.system is posix.system"), done.stderr
    done = subprocess.run([sys.executable, "-m", "mlkit.cli"], cwd=tmp_path, capture_output=True,
                          text=True)
    assert done.returncode == 0
    as_main = ("import mlkit.cli, sys, types; sys.modules['__main__'] = mlkit.cli; from "
               "mlkit.parts.locate import locate; locate('__main__.mlkit_train')")
    assert "not among the parts of mlkit" in python(as_main, ok=False).stderr


# -- messages that were there before trust

@pytest.mark.parametrize("target, message", [
    ("torch.nn.Lineer", "torch.nn has no 'Lineer'; did you mean 'Linear'?"),
    ("torhc.nn.Linear", "there is no module 'torhc'; is it installed?"),
    ("pytorch_lightning.Trainr", "pytorch_lightning has no 'Trainr'; did you mean 'Trainer'?"),
    ("torch.nn", "torch.nn is a module, which cannot be called"),
    ("torch.float32", "torch.float32 is a dtype, which cannot be called"),
    ("3 + 4", "a target is a dotted path such as torch.nn.Linear, not '3 + 4'"),
    (3, "not 3"), ("torch..nn", "a target is a dotted path"),
    ("torch.nn.Linear.", "a target is a dotted path"), ("", "a target is a dotted path"),
    ("torch.nn.Linear.foo", "torch.nn.Linear has no 'foo'"),
    ("torch.nn.functional.relu.foo", "torch.nn.functional.relu has no 'foo'"),
    ("Linear", "'Linear' is not registered"),
    ("mlkit.model.netz.MLP", "mlkit.model has no 'netz'; did you mean 'nets'?"),
    ("timm.create_model", "there is no module 'timm'; is it installed?"),
    ("torch.nn.Linear.__init__.__globals__", "a target may not lead through __init__")])
def test_mistakes(target, message):
    for f in (locate, outline):
        with pytest.raises(TargetError,
                           match=message.replace("(",
                                                 r"\(").replace("?", r"\?").replace("+",
                                                                                    r"\+")) as e:
            f(target)
        assert "\n" not in str(e.value) and e.type is TargetError


# -- signatures

@dataclass
class Fields:
    width: "int"
    depth: "typing.Optional[Path]" = None
    odd: "NoSuchName" = 3  # noqa: F821
    @classmethod
    def one(cls, n: "int") -> typing.TypeVar("Own", bound="Fields"): ...
    @classmethod
    def other(cls) -> "Fields": ...
    @staticmethod
    def text() -> "str": ...


def test_signatures_are_resolved_one_by_one(tmp_path, monkeypatch):
    write(tmp_path / "far_base.py",
          "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom pathlib "
          "import Path as P\nimport torch\n"
          "@dataclass\nclass Base:\n    path: P\n    def go(self, x: torch.Tensor, y: Missing | "
          "int = 1) -> list[P]: ...\n"
          "class Init:\n    def __init__(self, net: torch.nn.Module, *rest: int, lr: float = 1.0, "
          "**kw: str): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import far_base
    @dataclass
    class Near(far_base.Base):
        size: "int" = 0
    class Sub(far_base.Init): path: "Fields"
    kinds = lambda o: {k: p.annotation for k, p in signature(o).parameters.items()}
    empty = inspect.Parameter.empty
    assert kinds(Fields) == {"width": int, "depth": typing.Optional[Path], "odd": empty}
    assert kinds(Near) == {"path": Path, "size": int}
    assert kinds(Sub) == kinds(far_base.Init) == {"net": nn.Module, "rest": int, "lr": float,
                                                  "kw": str}
    assert (kinds(far_base.Base.go) == {"self": empty, "x": torch.Tensor, "y": empty}
            and signature(far_base.Base.go).return_annotation == list[Path])
    assert kinds(functools.partial(far_base.Init, lr=2.0))["net"] is nn.Module
    # which torch imports for type checkers only
    assert kinds(torch.optim.lr_scheduler.MultiStepLR)["milestones"] == typing.Iterable[int]
    assert kinds(torch.optim.SGD)["momentum"] is float and kinds(nn.Linear)["in_features"] is int


def test_there_is_no_signature_where_nobody_can_know():
    for obj in (torch.relu, torch.tensor, torch.Generator, torch.device, torch.nn.functional.gelu,
                3, print if False else torch.Tensor):
        assert signature(obj) is None and produces(obj) in (None, obj)
    assert str(signature(len)) == "(obj, /)"


def test_what_a_call_gives():
    async def later() -> int: ...
    def each() -> typing.Iterator[int]: yield 1
    def many() -> list[int]: ...
    def any_() -> typing.Any: ...
    def none() -> None: ...
    def either() -> int | str: ...
    class Called:
        def __call__(self) -> Path: ...
    assert [produces(o)
            for o in (Fields, Fields.one, Fields.other, Fields.text)] == [Fields, Fields, Fields,
                                                                          str]
    assert [produces(o) for o in (later, each, any_, either, lambda: 1)] == [None] * 5
    assert [produces(o)
            for o in (many, none, Called(), functools.partial(nn.ReLU))] == [list, type(None), Path,
                                                                             nn.ReLU]
    assert produces(nn.functional.relu) is torch.Tensor and produces(torch.relu) is None


def test_pydantic_models_have_signatures():
    pydantic = pytest.importorskip("pydantic")
    class Model(pydantic.BaseModel):
        a: int
        b: typing.Optional[float] = None
    assert {k: p.annotation
            for k, p in signature(Model).parameters.items()} == {"a": int,
                                                                 "b": typing.Optional[float]}


# -- outlines

OUTLINED = """pytorch_lightning pytorch_lightning.callbacks pytorch_lightning.loggers \
pytorch_lightning.strategies pytorch_lightning.profilers
    pytorch_lightning.plugins mlkit.data.mnist mlkit.data.folder mlkit.model.lit \
mlkit.model.losses mlkit.fit.checkpoint mlkit.fit.progress
    mlkit.model.nets mlkit.model.augment torch.nn torch.optim torch.optim.lr_scheduler torch.nn.init
    torch.utils.data torchmetrics.classification torch.distributions""".split()
ORACLE = """
import json, inspect, re, sys
from unittest.mock import patch
from mlkit.parts.outline import outline
from mlkit.parts.signature import produces, signature
from mlkit.parts.locate import locate
def told(o):
    sig = signature(o)
    return dict(params=sig and [(p.name, str(p.kind), p.default is p.empty) for p in \
sig.parameters.values()], doc=(o.__doc__ or "")[:40], name=o.__name__,
                qualname=o.__qualname__, module=o.__module__, \
mro=[f"{c.__module__}.{c.__qualname__}" for c in getattr(o, "__mro__", ())])
def words(o): return sorted(re.findall(r"[\\w.]+", str(o)))  # typing caches unions: `int | float` \
may show as `float | int`
def notes(o): return {k: words(p.annotation) for k, p in (signature(o) or \
inspect.Signature()).parameters.items()}
names = json.loads(sys.argv[1])
made, unclear = {}, []
def refuse(name, *_): raise LookupError(name)
room = sys.modules["mlkit.parts.outline"]
with patch.object(room, "locate", refuse):
    for name in names:
        try: made[name] = outline(name)
        except LookupError: unclear.append(name)
assert len(unclear) < len(names) / 12, unclear
assert "torch" not in sys.modules
out = {name: told(o) for name, o in made.items()}
assert all(outline(name) == o for name, o in made.items())
defaults = {n: {k: p.default for k, p in (signature(o) or inspect.Signature()).parameters.items() \
if p.default is not ...} for n, o in made.items()}
said, gives = {name: notes(o) for name, o in made.items()}, {n: getattr(produces(o), "__name__", \
None) for n, o in made.items()}
assert "torch" not in sys.modules
for name, o in made.items():
    real = locate(name)
    assert told(real) == out[name], (name, told(real), out[name])
    assert getattr(produces(real), "__name__", None) == gives[name], name
    assert not isinstance(real, type) or issubclass(real, o), (name, real.__mro__, o.__mro__)
    unclear = words(inspect._empty) if name.endswith("Theme") else "-"  # an import under an `if`
    plain = {k: p.default for k, p in (signature(real) or inspect.Signature()).parameters.items() \
if type(p.default) in (int, float, str, bool)}
    assert all(told_default == plain.get(k, told_default) for k, told_default in \
defaults[name].items()), (name, plain, defaults[name])
    different = {k: (v, said[name][k]) for k, v in notes(real).items() if said[name][k] not in (v, \
unclear)}
    assert not different, (name, different)
    assert outline(name) == real
"""


def test_outlines_say_what_the_real_classes_say():
    names = [f"{m}.{n}" for m in OUTLINED for n in public(importlib.import_module(m))]
    names += ["pytorch_lightning.LightningDataModule.from_datasets",
              "pytorch_lightning.callbacks.progress.rich_progress.RichProgressBarTheme",
              "pytorch_lightning.utilities.combined_loader.CombinedLoader"]
    assert len(names) > 400
    python(ORACLE, json.dumps(names))


def test_what_source_does_not_tell_is_imported():
    python("""
import sys
from mlkit.parts.outline import outline
parameter = outline("torch.nn.Parameter")
import torch
assert parameter is torch.nn.Parameter and outline("torch.optim.SGD") is torch.optim.SGD
""")


def test_outlines_and_real_classes_are_kin():
    python("""
import sys, torch
from torch import nn
from mlkit.parts.outline import outline
model, base = outline("mlkit.model.lit.LitModel"), outline("pytorch_lightning.LightningModule")
assert issubclass(model, base) and issubclass(model, nn.Module) and not issubclass(base, model)
assert issubclass(outline("mlkit.model.nets.ConvNet"), nn.Module) and not issubclass(nn.Linear, \
base)
assert issubclass(outline("mlkit.fit.checkpoint.Checkpoint"), \
outline("pytorch_lightning.callbacks.Checkpoint"))
assert issubclass(outline("mlkit.data.mnist.MNIST"), \
outline("pytorch_lightning.LightningDataModule"))
assert not issubclass(outline("mlkit.data.mnist.MNIST"), base) and "pytorch_lightning" not in \
sys.modules
from mlkit.model.lit import LitModel
assert issubclass(LitModel, model) and issubclass(LitModel, base)
assert outline("mlkit.model.lit.LitModel") is LitModel
""")


def test_outlines_refuse_and_err_as_locate_does():
    targets = [t for t in HOSTILE
               if t.split(".")[0] in ("mlkit", "pytorch_lightning", "lightning_fabric")]
    targets += ["pytorch_lightning.Trainr", "mlkit.model.LitModle", "mlkit.nope.X",
                "pytorch_lightning.callbacks", "mlkit.model.lit.LitModel.nope", "mlkit.model."]
    done = python("""
import json, sys
from mlkit.parts.outline import outline
from mlkit.parts.locate import locate
from mlkit.parts.trust import TargetError
def said(f, target):
    try: return f(target)
    except TargetError as e: return f"{type(e).__name__}: {e}"
for target in json.loads(sys.argv[1]):
    first = said(outline, target)
    if not isinstance(first, str) or first != said(locate, target): print(target, first, \
said(locate, target))
""", json.dumps(targets))
    assert done.stdout == ""


def test_outlines_are_made_once_by_many_threads():
    python("""
import sys, threading, torch
from mlkit.parts.outline import outline
from mlkit.parts.signature import signature
got = []
def work(): got.append([(o := outline(n)) and signature(o) and o for n in \
("mlkit.model.lit.LitModel", "pytorch_lightning.Trainer", "mlkit.fit.progress.Progress")])
threads = [threading.Thread(target=work) for _ in range(8)]
for o in threads: o.start()
for o in threads: o.join()
assert len(got) == 8 and all(a is b for row in got for a, b in zip(row, got[0])) and \
"pytorch_lightning" not in sys.modules
""")


def test_timm_unpickles_nothing(tmp_path, monkeypatch):
    "`create_model` loads files that a config names, without `weights_only`."
    write(tmp_path / "timm" / "__init__.py", "from timm.models import create_model\n")
    write(tmp_path / "timm" / "models.py", "def create_model(model_name, pretrained=False, "
          "pretrained_cfg=None, pretrained_cfg_overlay=None, checkpoint_path='', **kwargs): "
          "return model_name, kwargs\ndef resnet(pretrained=False, **kwargs): return kwargs\n"
          "class PretrainedCfg:\n    def __init__(self, url='', file=None, mean=0): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    def built(target, *args, **kwargs):
        "A check says before what building says; of arguments that stand elsewhere, too."
        links = {k: f"${{extra.{k}}}" for k in kwargs}
        model = dict(_target_=f"timm.{target}", _args_=[*args], **links)
        cfg = load_config(dict(defaults=[], extra=kwargs, model=model))
        said = find_problems(cfg.model)
        try: return build(cfg.model)
        except ConfigError as e:
            assert [o.message for o in said] == [o.message for o in e.problems]
            said = []
            raise
        finally: assert not said
    for args, kwargs in [
        (["a"], dict(checkpoint_path="evil.pth")), (["a", False, None, None, "evil.pth"], {}),
        (["a"], dict(pretrained_cfg=dict(file="evil.pth"))), (["hf-hub:evil/model"], {}),
        (["a"], dict(pretrained_cfg_overlay=dict(file="evil.pth"))), (["local-dir:evil"], {}),
        (["a"], dict(pretrained_cfg=dict(url="http://evil"))), (["hf_hub:evil/model", True], {}),
        (["a"], dict(pretrained_cfg=dict(hf_hub_id="evil/model"))),
        (["a"], dict(pretrained_cfg=dict(state_dict={"a": 1}))),
        (["a"], dict(pretrained_cfg="hf-hub:evil/model")),
        (["a"], dict(pretrained_cfg=dict(custom_load=True)))]:
        for target in ("create_model", "models.create_model"):
            with pytest.raises(ConfigError, match="would let timm unpickle"):
                built(target, *args, **kwargs)
            with pytest.raises(ConfigError, match="would let timm unpickle"):
                built(target, *args, **kwargs, _partial_=True)
    for target, kwargs in (("models.resnet", dict(pretrained_cfg=dict(file="evil.pth"))),
                           ("models.PretrainedCfg", dict(file="evil.pth"))):
        with pytest.raises(ConfigError, match="would let timm unpickle"): built(target, **kwargs)
    kwargs = dict(pretrained=True, pretrained_cfg=dict(mean=[0.5], file=""), num_classes=3)
    assert built("create_model", "resnet18.a1_in1k", **kwargs) == (
        "resnet18.a1_in1k", dict(num_classes=3))
    monkeypatch.setenv("MLKIT_TRUST", "timm.create_model")
    assert built("create_model", "hf-hub:mine/model")[0] == "hf-hub:mine/model"
    for o in [k for k in sys.modules if k.split(".")[0] == "timm"]: del sys.modules[o]
