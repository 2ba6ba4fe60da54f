// A CUDA card or an Apple GPU on which nothing runs. Autograd asks the device of every tensor for its streams and events; a build
// of PyTorch for CPUs answers with an error. This answers that there is one device and that it has finished everything.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/detail/MPSHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace {

using c10::Device, c10::DeviceIndex, c10::DeviceType, c10::Stream;

template <DeviceType kind>
struct NoOpGuard final : c10::impl::DeviceGuardImplInterface {
  static Device only() { return Device(kind, 0); }
  static Stream stream() { return Stream(Stream::DEFAULT, only()); }
  DeviceType type() const override { return kind; }
  DeviceIndex deviceCount() const noexcept override { return 1; }
  Device getDevice() const override { return only(); }
  Device exchangeDevice(Device) const override { return only(); }
  void setDevice(Device) const override {}
  void uncheckedSetDevice(Device) const noexcept override {}
  Stream getStream(Device) const override { return stream(); }
  Stream getNewStream(Device, int) const override { return stream(); }
  Stream exchangeStream(Stream) const override { return stream(); }
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override {}
  void synchronizeDevice(const DeviceIndex) const override {}
  void record(void**, const Stream&, const DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override {}
  void destroyEvent(void*, const DeviceIndex) const noexcept override {}
  void recordDataPtrOnStream(const c10::DataPtr&, const Stream&) const override {}
};

template <DeviceType kind>
struct DeviceGenerator final : at::CPUGeneratorImpl {  // draws what a CPU's does, and says that it belongs to the device
  DeviceGenerator() { device_ = Device(kind, 0); }
};

template <class Interface, DeviceType kind>
struct Hooks : Interface {
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  DeviceIndex exchangeDevice(DeviceIndex) const override { return 0; }
  DeviceIndex maybeExchangeDevice(DeviceIndex) const override { return 0; }
  void setCurrentDevice(DeviceIndex) const override {}
  at::Generator getNewGenerator(DeviceIndex = -1) const override { return at::make_generator<DeviceGenerator<kind>>(); }
  const at::Generator& getDefaultGenerator(DeviceIndex = -1) const override {
    static const at::Generator generator = getNewGenerator();
    return generator;
  }
};

struct CUDA final : Hooks<at::CUDAHooksInterface, DeviceType::CUDA> {
  bool hasCUDA() const override { return true; }
  int getNumGPUs() const override { return 1; }
  DeviceIndex current_device() const override { return 0; }
};

struct MPS final : Hooks<at::MPSHooksInterface, DeviceType::MPS> {
  bool hasMPS() const override { return true; }
};

}  // namespace

// each is called once, before Python imports torch
extern "C" void pretend_cuda() {
  static c10::impl::DeviceGuardImplRegistrar guard(DeviceType::CUDA, new NoOpGuard<DeviceType::CUDA>);
  at::CUDAHooksRegistry()->Register("CUDAHooks", [](at::CUDAHooksArgs) -> std::unique_ptr<at::CUDAHooksInterface> {
    return std::make_unique<CUDA>();
  });
}

extern "C" void pretend_mps() {
  static c10::impl::DeviceGuardImplRegistrar guard(DeviceType::MPS, new NoOpGuard<DeviceType::MPS>);
  at::MPSHooksRegistry()->Register("MPSHooks", []() -> std::unique_ptr<at::MPSHooksInterface> { return std::make_unique<MPS>(); });
}
