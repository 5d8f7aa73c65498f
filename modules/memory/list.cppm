// A growable array whose growth can fail: std::vector for a library that neither throws nor ends the host's process.
export module qorus.memory:list;
import qorus.std;
import :error;

namespace qorus {

// What lists of all types share: memory for so many elements, and, where they are bytes to it, the move of `used` of them there.
// Errors: overflow, out_of_memory; nothing is changed then.
[[nodiscard]] Result<void*> room_for(std::size_t count, std::size_t size, std::size_t alignment) noexcept;
[[nodiscard]] Status move_to_room_for(std::size_t count, std::size_t size, std::size_t alignment, void*& data,
                                      std::size_t used) noexcept;
void free_room(void* data, std::size_t alignment) noexcept;

}  // namespace qorus

export namespace qorus {

// Contiguous, move-only (clone() copies, and can fail). T moves without throwing. Growth doubles. Errors: out_of_memory.
template <class T>
class List {
  static_assert(std::is_nothrow_move_constructible_v<T> && std::is_nothrow_destructible_v<T>);

 public:
  List() noexcept = default;
  List(List&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        capacity_(std::exchange(other.capacity_, 0)) {}
  List& operator=(List&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    return *this;
  }
  List(const List&) = delete;
  List& operator=(const List&) = delete;
  ~List() {
    clear();
    free_room(data_, alignof(T));
  }

  [[nodiscard]] Status reserve(std::size_t wanted) noexcept {
    if (wanted <= capacity_) return {};
    if constexpr (std::is_trivially_copyable_v<T>) {
      void* data = data_;
      if (auto moved = move_to_room_for(wanted, sizeof(T), alignof(T), data, size_); !moved) return moved;
      data_ = static_cast<T*>(data);
    } else {
      auto room = room_for(wanted, sizeof(T), alignof(T));
      if (!room) return fail(room.error());
      T* const fresh = static_cast<T*>(*room);
      for (std::size_t i = 0; i < size_; ++i) {
        new (fresh + i) T(std::move(data_[i]));
        data_[i].~T();
      }
      free_room(data_, alignof(T));
      data_ = fresh;
    }
    capacity_ = wanted;
    return {};
  }
  [[nodiscard]] Status push(T value) noexcept {
    if (size_ == capacity_) {
      if (auto grown = reserve(capacity_ ? capacity_ * 2 : 8); !grown) return grown;
    }
    new (data_ + size_++) T(std::move(value));
    return {};
  }
  // New elements are value-initialised.
  [[nodiscard]] Status resize(std::size_t wanted) noexcept
    requires std::is_nothrow_default_constructible_v<T>
  {
    if (auto grown = reserve(wanted); !grown) return grown;
    while (size_ > wanted) data_[--size_].~T();
    while (size_ < wanted) new (data_ + size_++) T();
    return {};
  }
  // `more` is no part of this list.
  [[nodiscard]] Status append(std::span<const T> more) noexcept
    requires std::is_trivially_copyable_v<T>
  {
    if (size_ + more.size() > capacity_) {
      const std::size_t doubled = capacity_ * 2, needed = size_ + more.size();
      if (auto grown = reserve(doubled > needed ? doubled : needed); !grown) return grown;
    }
    std::uninitialized_copy(more.begin(), more.end(), data_ + size_);
    size_ += more.size();
    return {};
  }
  [[nodiscard]] Result<List> clone() const noexcept
    requires std::is_nothrow_copy_constructible_v<T>
  {
    List copy;
    if (auto room = copy.reserve(size_); !room) return fail(room.error());
    for (; copy.size_ < size_; ++copy.size_) new (copy.data_ + copy.size_) T(data_[copy.size_]);
    return copy;
  }
  void clear() noexcept {
    while (size_) data_[--size_].~T();
  }

  [[nodiscard]] T* data() noexcept { return data_; }
  [[nodiscard]] const T* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] T& operator[](std::size_t i) noexcept { return data_[i]; }
  [[nodiscard]] const T& operator[](std::size_t i) const noexcept { return data_[i]; }
  [[nodiscard]] T& back() noexcept { return data_[size_ - 1]; }
  [[nodiscard]] const T& back() const noexcept { return data_[size_ - 1]; }
  [[nodiscard]] T* begin() noexcept { return data_; }
  [[nodiscard]] T* end() noexcept { return data_ + size_; }
  [[nodiscard]] const T* begin() const noexcept { return data_; }
  [[nodiscard]] const T* end() const noexcept { return data_ + size_; }
  [[nodiscard]] std::span<T> span() noexcept { return {data_, size_}; }
  [[nodiscard]] std::span<const T> span() const noexcept { return {data_, size_}; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0, capacity_ = 0;
};

}  // namespace qorus
